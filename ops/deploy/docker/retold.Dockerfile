# The command line, for `docker compose run --rm retold ...`: every package, because it can do everything. It also makes
# keys and configuration (service `init`) and exports figures (`metrics`).
FROM python:3.11-bookworm AS build
COPY requirements/ops.txt /requirements.txt
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
      --requirement /requirements.txt
COPY contracts /app/contracts
COPY capture /app/capture
COPY mixer /app/mixer
COPY gateway /app/gateway
COPY ops /app/ops
WORKDIR /app
RUN /venv/bin/python -m mixer.kernel && chmod -R a+rX /app && python -m compileall -q /app

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 retold \
 && useradd --no-log-init --uid 10001 --gid retold --no-create-home --shell /usr/sbin/nologin retold \
 && install -d -o retold -g retold -m 0700 /data \
 && install -d -o retold -g retold /data/keys /data/keys/public \
 && for part in nats capture mixer gateway monitor keeper operator grafana; do \
      install -d -o retold -g retold -m 0700 /init "/init/$part"; done
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 RETOLD_DATA=/data
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "ops.cli.main"]
CMD ["--help"]
