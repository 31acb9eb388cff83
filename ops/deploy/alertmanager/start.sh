#!/bin/sh
# Alertmanager with the address of a Discord webhook in its configuration: it reads none from its environment.
: "${ALERT_WEBHOOK:?is required: the address of the webhook of a Discord channel}"
here=$(dirname "$0")
made=${TMPDIR:-/tmp}/alertmanager.yml
umask 077
# What `sed` and YAML would read otherwise: nothing of it stands in an address.
case $ALERT_WEBHOOK in
*[!A-Za-z0-9_:/.?=%-]*) echo "ALERT_WEBHOOK is no address" >&2 && exit 2 ;;
esac
sed "s|https://discord.com/api/webhooks/ID/TOKEN|$ALERT_WEBHOOK|" "$here/alertmanager.yml" >"$made"
exec alertmanager --config.file="$made" "$@"
