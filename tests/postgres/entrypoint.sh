# The variables of the image `postgres`, as far as compose.yaml sets them.
set -e
data=/var/lib/postgresql/data
if ! [ -e "$data/PG_VERSION" ]; then
    initdb --auth=scram-sha-256 --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
        --encoding=UTF8 --locale=C --pgdata="$data"
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$data" postgres
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
