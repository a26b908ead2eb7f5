# Tries ways out in containers that a job starts with its own Docker Engine. Prints what ways_out.sh
# does, for the same names and address.
until docker version >/dev/null 2>&1; do sleep 0.2; done
tar -c /usr /lib /lib64 2>/dev/null | docker import - inner >/dev/null
report() { case "$2" in *REACHED*) echo "way $1 reached: $2";; *) echo "way $1 closed";; esac; }
inner() { timeout 30 docker run --rm "$@" 2>/dev/null; }
web() { local n=$1; shift; report "$n" "$(inner inner curl -sk -m 4 "$@")"; }
web inner-connect-forbidden https://forbidden.test/
web inner-http-forbidden http://forbidden.test/
web inner-private https://private.test/
web inner-direct --noproxy '*' http://$OUTSIDE/
web inner-direct-metadata --noproxy '*' http://169.254.169.254/
report inner-no-variables "$(inner inner bash -c "unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy; curl -sk -m 4 --resolve allowed.test:443:$OUTSIDE https://allowed.test/")"
report inner-udp-resolver "$(inner inner timeout 3 bash -c "exec 3<>/dev/udp/$OUTSIDE/53 && printf x >&3 && head -c 7 <&3")"
report inner-dns "$(inner inner timeout 8 getent hosts example.com >/dev/null && echo REACHED)"
report inner-host-network "$(inner --network host inner curl -sk -m 4 --noproxy '*' http://$OUTSIDE/)"
report engine-pull "$(timeout 20 docker pull forbidden.test/image:1 >/dev/null 2>&1 && echo REACHED)"
permitted() { timeout 30 docker run --rm inner curl -sSk -m 5 $1 2>&1; }
echo permitted $(permitted https://allowed.test/) $(permitted http://allowed.test/)
echo end
# For whoever reads this.
sleep 600
