# `docker build -t guichet . && docker run --rm -p 7860:7860 guichet`: one container, with the example models.
# -v guichet:/data keeps what is stored. `make dockerfile` writes this file.
# Made from Dockerfile.api and deploy/space/Dockerfile.stage: change it there.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS base
# What is built is not written to any more: bytecode is made here, and no process makes it later.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /srv/guichet

FROM base AS process
# Named volumes take over the owner of the folder that they cover.
RUN useradd --uid 1000 --create-home --home-dir /home/guichet --shell /usr/sbin/nologin guichet \
 && install --directory --owner guichet --group guichet /data /spool /run/prometheus-secrets
# DATA_DIR is for what is kept; uploads wait in TMPDIR, in files without a name, until they are complete.
ENV HOST=0.0.0.0 \
    DATA_DIR=/data \
    TMPDIR=/spool
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-m", "api.probe", "--end-after", "9"]
ENTRYPOINT ["python", "-m"]
CMD ["api"]

FROM base AS sync-libraries
COPY requirements/sync.txt requirements/
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
    --disable-pip-version-check --quiet -r requirements/sync.txt \
 && find /opt/venv -depth -type d -name tests -exec rm -r {} +

FROM process AS sync
# LightGBM's wheel is the one that does not bring OpenMP with it.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY --from=sync-libraries /opt/venv /opt/venv
COPY alembic.ini ./
COPY migrations migrations
COPY examples examples
COPY shared shared
COPY api api
RUN python -m compileall -q api shared migrations examples
ENV RUNTIME=sync PORT=7860
EXPOSE 7860
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Guichet" \
      org.opencontainers.image.description="A prediction service in one process: takes rows, scores them, keeps both." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 1000:1000

# What makes it a Space: scripts/space/deploy.py puts this stage behind the sync stage of Dockerfile.api.
FROM sync AS space
USER root
COPY deploy/__init__.py deploy/
COPY deploy/space deploy/space
# A folder /data is persistent storage that the Space has, or it is not there.
RUN rmdir /data \
 && python -m compileall -q deploy \
 && install --directory --owner guichet --group guichet seed
USER 1000:1000
# Trained and registered here, so that a Space which wakes up need not.
RUN export DATA_DIR=/srv/guichet/seed \
 && python -m alembic upgrade head \
 && python -m examples.build
# Limits for everyone: one process serves, and scores every file that it takes.
ENV HOST=0.0.0.0 PORT=7860 \
    AUTH=predict-open RATE_PER_MINUTE=60 RATE_BURST=20 PROXY_HOPS=1 \
    MAX_BODY_BYTES=1000000 MAX_BATCH_ROWS=200 MAX_CSV_BYTES=5000000 MAX_CSV_ROWS=20000 \
    DEFAULT_MODEL=attrition FRAME_ANCESTORS=https://huggingface.co
ENTRYPOINT ["python", "-m", "deploy.space.start"]
CMD []
