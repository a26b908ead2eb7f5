# Tries ways out of the network of a pool with egress. Each prints `way NAME closed`, or `way NAME
# reached` and what it got.
#
# OUTSIDE is the address of a server that answers REACHED on ports 53 and 443 (UDP and TCP), 80, 8080 and
# 8443. The pool permits allowed.test, private.test, metadata.test and loopback.test; all but the first
# have addresses that are always closed.
gw=${HTTPS_PROXY#http://}
gw=${gw%:*}
base=${gw%.*}
report() { case "$2" in *REACHED*) echo "way $1 reached: $2";; *) echo "way $1 closed";; esac; }
tcp() { report "$1" "$(timeout 3 bash -c 'exec 3<>/dev/tcp/'$2'/'$3' && printf "GET / HTTP/1.0\r\n\r\n" >&3 && echo REACHED' 2>/dev/null)"; }
udp() { report "$1" "$(timeout 3 bash -c 'exec 3<>/dev/udp/'$OUTSIDE'/'$2' && printf x >&3 && head -c 7 <&3' 2>/dev/null)"; }
web() { local n=$1; shift; report "$n" "$(curl -sk -m 4 "$@" 2>/dev/null)"; }
raw() { report "$1" "$(timeout 4 bash -c 'exec 3<>/dev/tcp/'$gw'/3128 && printf "'"$2"'" >&3 && timeout 3 cat <&3' 2>/dev/null | tr -d '\0')"; }
tcp direct-https $OUTSIDE 443
tcp direct-http $OUTSIDE 80
tcp direct-metadata 169.254.169.254 80
tcp direct-host-docker0 172.17.0.1 80
tcp direct-host-bridge ${base%.*}.0.1 80
tcp direct-host-ssh ${base%.*}.0.1 22
tcp direct-ipv6 2001:db8::1 443
tcp gateway-admin $gw 9901
udp direct-quic 443
udp udp-resolver 53
tcp tcp-resolver $OUTSIDE 53
report dns-by-dockers-resolver "$(timeout 8 getent hosts secret.forbidden.test >/dev/null 2>&1 && echo REACHED)"
report dns-public-name "$(timeout 8 getent hosts example.com >/dev/null 2>&1 && echo REACHED)"
( unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy
web no-variables https://allowed.test/
web no-variables-by-address --resolve allowed.test:443:$OUTSIDE https://allowed.test/ )
report route-by-proxy "$(ip route add default via $gw 2>/dev/null && timeout 3 bash -c 'exec 3<>/dev/tcp/'$OUTSIDE'/443 && echo REACHED' 2>/dev/null)"
web connect-forbidden https://forbidden.test/
web http-forbidden http://forbidden.test/
web connect-address https://$OUTSIDE/
web http-address http://$OUTSIDE/
web other-server-name --connect-to forbidden.test:443:allowed.test:443 https://forbidden.test/
web no-tls-in-tunnel -p --connect-to allowed.test:80:allowed.test:443 http://allowed.test/
web private-name https://private.test/
web private-name-http http://private.test/
web metadata-by-proxy http://169.254.169.254/
web metadata-tunnel https://169.254.169.254/
web other-port https://allowed.test:8443/
web other-port-http http://allowed.test:8080/
web ssh-port https://allowed.test:22/
web final-dot https://forbidden.test./
web upper-case https://FORBIDDEN.test/
web mapped-ipv6 "https://[::ffff:$OUTSIDE]/"
# NO_PROXY names the runner itself.
web loopback-number --noproxy '' http://2130706433/
raw loopback-unchanged-number 'GET http://2130706433/ HTTP/1.1\r\nHost: a\r\n\r\n'
web host-docker0-by-proxy http://172.17.0.1/
web userinfo http://allowed.test@forbidden.test/
web below-a-name https://allowed.test.forbidden.test/
web http2-to-proxy --http2-prior-knowledge http://forbidden.test/
raw early-data 'CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\nGET / HTTP/1.1\r\nHost: forbidden.test\r\n\r\n'
raw host-header 'GET / HTTP/1.1\r\nHost: forbidden.test\r\n\r\n'
raw permitted-host-header 'GET http://forbidden.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n'
raw permitted-host-of-tunnel 'CONNECT forbidden.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n'
web metadata-name https://metadata.test/
web metadata-name-http http://metadata.test/
web loopback-name https://loopback.test/
web loopback-name-http http://loopback.test/
web localhost --noproxy '' http://localhost:9901/
web no-server-name --connect-to $OUTSIDE:443:allowed.test:443 https://$OUTSIDE/
web resolver-by-tunnel -p http://$OUTSIDE:53/
web resolver-by-name -p http://allowed.test:53/
web ipv6-by-proxy http://[2001:db8::1]/
web ipv6-tunnel https://[2001:db8::1]/
web ipv6-link-local http://[fe80::1]/
web same-connection -o /dev/null http://allowed.test/ --next -sk -m 4 http://forbidden.test/
web upgrade -H 'Connection: Upgrade' -H 'Upgrade: websocket' http://forbidden.test/
web socks --socks5-hostname $gw:3128 http://forbidden.test/
echo permitted $(curl -sk -m 5 https://allowed.test/) $(curl -s -m 5 http://allowed.test/)
echo end
# For whoever reads this.
sleep 600
