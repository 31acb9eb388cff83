# Capture: the bot. Its data folder holds the private keys; the public halves are a volume of their own below it.
FROM python:3.11-slim-bookworm AS build
COPY requirements/capture.txt /requirements.txt
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
      --requirement /requirements.txt
COPY contracts /app/contracts
COPY capture /app/capture
RUN chmod -R a+rX /app && python -m compileall -q /app

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 retold \
 && useradd --no-log-init --uid 10001 --gid retold --no-create-home --shell /usr/sbin/nologin retold \
 && install -d -o retold -g retold -m 0700 /data \
 && install -d -o retold -g retold /data/keys /data/keys/public
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 RETOLD_DATA=/data
USER 10001:10001
HEALTHCHECK CMD ["python", "-m", "contracts.health", "capture"]
CMD ["python", "-m", "capture"]
