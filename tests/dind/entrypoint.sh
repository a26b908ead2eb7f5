# With version 2 of cgroups, one that has processes of its own gives no controllers to
# those below it: they go one down.
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
