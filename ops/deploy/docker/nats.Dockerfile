# The NATS server. Its configuration is made by `retold init` and mounted at /config.
FROM nats:2.15.1-alpine
RUN install -d -o 10001 -g 10001 -m 0700 /data /config
WORKDIR /config
ENV NATS_STORE=/data
USER 10001:10001
HEALTHCHECK CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8222/healthz?js-server-only=true"]
ENTRYPOINT ["nats-server", "--config", "/config/nats.conf"]
CMD []
