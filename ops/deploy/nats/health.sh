#!/bin/sh
# Whether nats-server is well. One whose disk was full writes some streams no more, or none, also when there is room
# again: then it is ended, and whoever runs it starts it again (ops/thaw.py says more).
# A shell's own words and BusyBox: there is nothing else in the image.
monitor=${NATS_MONITOR:-127.0.0.1:8222}
said=$(printf 'GET /healthz?details=true HTTP/1.0\r\n\r\n' | nc -w 5 "${monitor%:*}" "${monitor#*:}") || exit 1
case $said in
*'write error'* | *'JetStream not enabled'*)
  free_kb=$(df -Pk "$NATS_STORE" | awk 'NR == 2 { print $4 }')
  if [ "$free_kb" -ge 32768 ]; then
    kill "${NATS_PID:-1}"
  fi
  echo "its disk was full, and it writes no more; $free_kb kB are free"
  exit 1
  ;;
esac
exec wget -q -O /dev/null "http://$monitor/healthz?js-server-only=true"
