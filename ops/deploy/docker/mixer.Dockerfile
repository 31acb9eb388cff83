# The mixer. A render's files lie in /scratch until they are in the store: hundreds of megabytes for a long session. What
# followers of running sessions go on from lies in /data/follow.
FROM python:3.11-bookworm AS build
COPY requirements/mixer.txt /requirements.txt
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
      --requirement /requirements.txt
COPY contracts /app/contracts
COPY mixer /app/mixer
WORKDIR /app
RUN /venv/bin/python -m mixer.kernel && chmod -R a+rX /app && python -m compileall -q /app

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 retold \
 && useradd --no-log-init --uid 10001 --gid retold --no-create-home --shell /usr/sbin/nologin retold \
 && install -d -o retold -g retold -m 0700 /data /data/follow /scratch
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 RETOLD_DATA=/data TMPDIR=/scratch
USER 10001:10001
HEALTHCHECK CMD ["python", "-m", "contracts.health", "mixer"]
CMD ["python", "-m", "mixer"]
