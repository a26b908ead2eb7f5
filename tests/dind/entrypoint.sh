# In version 2 of cgroups, a cgroup that contains processes cannot pass controllers to its
# children. So the processes move to a child first.
set -e
cd /sys/fs/cgroup
if [ -f cgroup.controllers ]; then
    mkdir -p init
    while read -r process; do
        echo "$process" > init/cgroup.procs || :
    done < cgroup.procs
    read -r controllers < cgroup.controllers
    for controller in $controllers; do
        echo "+$controller" > cgroup.subtree_control
    done
fi
cd /
exec "$@"
