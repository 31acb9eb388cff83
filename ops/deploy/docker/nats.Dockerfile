# The NATS server. Its configuration is made by `retold init` and mounted at /config.
FROM nats:2.15.1-alpine
COPY ops/deploy/nats/health.sh /etc/retold/health.sh
RUN install -d -o 10001 -g 10001 -m 0700 /data /config
WORKDIR /config
ENV NATS_STORE=/data
USER 10001:10001
HEALTHCHECK CMD ["sh", "/etc/retold/health.sh"]
ENTRYPOINT ["nats-server", "--config", "/config/nats.conf"]
CMD []
