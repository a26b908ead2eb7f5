# Tries ways out of the network of a pool with egress. Each prints `way NAME closed`, or `way NAME
# reached` and what it got.
#
# OUTSIDE is the address of a server that answers REACHED on ports 53 (UDP and TCP), 80, 443, 8080 and
# 8443. The pool permits allowed.test and private.test; private.test has a private address.
gw=${HTTPS_PROXY#http://}
gw=${gw%:*}
base=${gw%.*}
report() { case "$2" in *REACHED*) echo "way $1 reached: $2";; *) echo "way $1 closed";; esac; }
tcp() { report "$1" "$(timeout 3 bash -c 'exec 3<>/dev/tcp/'$2'/'$3' && printf "GET / HTTP/1.0\r\n\r\n" >&3 && echo REACHED' 2>/dev/null)"; }
web() { local n=$1; shift; report "$n" "$(curl -sk -m 4 "$@" 2>/dev/null)"; }
tcp direct-https $OUTSIDE 443
tcp direct-http $OUTSIDE 80
tcp direct-metadata 169.254.169.254 80
tcp direct-host-docker0 172.17.0.1 80
tcp direct-host-bridge ${base%.*}.0.1 80
tcp direct-host-ssh ${base%.*}.0.1 22
tcp direct-ipv6 2001:db8::1 443
tcp gateway-admin $gw 9901
report udp-resolver "$(timeout 3 bash -c 'exec 3<>/dev/udp/'$OUTSIDE'/53 && printf x >&3 && head -c 7 <&3' 2>/dev/null)"
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
web loopback-number http://2130706433/
web host-docker0-by-proxy http://172.17.0.1/
web userinfo http://allowed.test@forbidden.test/
web below-a-name https://allowed.test.forbidden.test/
web http2-to-proxy --http2-prior-knowledge http://forbidden.test/
report early-data "$(timeout 4 bash -c 'exec 3<>/dev/tcp/'$gw'/3128 && printf "CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\nGET / HTTP/1.1\r\nHost: forbidden.test\r\n\r\n" >&3 && timeout 3 cat <&3' 2>/dev/null | tr -d '\0')"
report host-header "$(timeout 4 bash -c 'exec 3<>/dev/tcp/'$gw'/3128 && printf "GET / HTTP/1.1\r\nHost: forbidden.test\r\n\r\n" >&3 && timeout 3 cat <&3' 2>/dev/null | tr -d '\0')"
echo permitted $(curl -sk -m 5 https://allowed.test/) $(curl -s -m 5 http://allowed.test/)
echo end
# For whoever reads this.
sleep 600
