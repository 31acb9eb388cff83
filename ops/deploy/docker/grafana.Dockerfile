# Grafana with Retold's dashboard, at /grafana/ behind nginx.
FROM grafana/grafana:12.2.0
USER 0
COPY ops/deploy/grafana/provisioning /etc/grafana/provisioning
COPY ops/deploy/grafana/dashboards /etc/grafana/dashboards
RUN chmod -R a+rX /etc/grafana && mkdir -p /data && chown 10001:10001 /data
ENV GF_PATHS_DATA=/data GF_PATHS_LOGS=/data/log GF_PATHS_PLUGINS=/data/plugins GF_LOG_MODE=console
USER 10001:10001
HEALTHCHECK CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:3000/api/health"]
ENTRYPOINT ["/run.sh"]
CMD []
