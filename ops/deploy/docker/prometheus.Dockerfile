# Prometheus with Retold's alerts.
FROM prom/prometheus:v3.5.0
USER 0
COPY ops/deploy/prometheus /etc/prometheus
RUN chmod -R a+rX /etc/prometheus && mkdir -p /data && chown 10001:10001 /data
USER 10001:10001
HEALTHCHECK CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9090/-/ready"]
ENTRYPOINT ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/data"]
CMD ["--storage.tsdb.retention.time=30d", "--storage.tsdb.retention.size=2GB"]
