# Alertmanager, which tells alerts in a Discord channel.
FROM prom/alertmanager:v0.28.1
USER 0
COPY ops/deploy/alertmanager /etc/alertmanager
RUN chmod -R a+rX /etc/alertmanager && mkdir -p /data && chown 10001:10001 /data
USER 10001:10001
HEALTHCHECK CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9093/-/ready"]
ENTRYPOINT ["sh", "/etc/alertmanager/start.sh", "--storage.path=/data", "--cluster.listen-address="]
CMD []
