# The gateway. Of the data folder it has the public keys only.
FROM python:3.11-slim-bookworm AS build
COPY requirements/gateway.txt /requirements.txt
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
      --requirement /requirements.txt
COPY contracts /app/contracts
COPY gateway /app/gateway
RUN chmod -R a+rX /app && python -m compileall -q /app

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 retold \
 && useradd --no-log-init --uid 10001 --gid retold --no-create-home --shell /usr/sbin/nologin retold \
 && install -d -o retold -g retold -m 0700 /data \
 && install -d -o retold -g retold -m 0700 /cache \
 && install -d -o retold -g retold /data/keys /data/keys/public
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 RETOLD_DATA=/data RETOLD_GATEWAY_HOST=0.0.0.0 RETOLD_GATEWAY_PORT=8080
USER 10001:10001
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:%s/health/ready' % os.environ['RETOLD_GATEWAY_PORT'], timeout=4)"]
CMD ["python", "-m", "gateway"]
