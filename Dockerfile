# syntax=docker/dockerfile:1
# docker build -t aperta .                              embedded engines and faster-whisper
# docker build -t aperta --build-arg EXTRAS=pyannote .  with pyannote.audio (and PyTorch: several GB)
#
# The tag moves with Python's bug fixes. To build from one image and no other, name its digest:
#     docker build --build-arg PYTHON_IMAGE=python:3.12-slim-bookworm@sha256:<digest> .
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
RUN python -m venv /opt/venv
# Dependencies alone, so that a change of the source leaves this layer as it is: the editable install of an empty package
# points at /app, where the next stage puts the real one.
COPY pyproject.toml setup.py constraints.txt scripts/hashed_requirements.py LICENSE NOTICE README.md ./
RUN mkdir -p backend alembic/versions && touch backend/__init__.py \
    && python hashed_requirements.py constraints.txt server >requirements.txt \
    && /opt/venv/bin/pip install --require-hashes --no-deps -r requirements.txt \
    && /opt/venv/bin/pip install --no-deps --no-build-isolation -e . \
    && /opt/venv/bin/pip check
# Extras come by version alone: PyTorch has other builds, with other hashes, on other indexes.
RUN test -z "${EXTRAS}" || /opt/venv/bin/pip install -c constraints.txt -e ".[${EXTRAS}]"

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --user-group --create-home aperta \
    && install --directory --owner=aperta --group=aperta /data /data/uploads /data/models
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE NOTICE README.md pyproject.toml ./
COPY alembic alembic
COPY backend backend
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    PYANNOTE_METRICS_ENABLED=0 \
    HOST=0.0.0.0 \
    PORT=8000 \
    UPLOAD_DIR=/data/uploads \
    DATABASE_URL=sqlite+aiosqlite:////data/aperta.db \
    MODELS_DIR=/data/models
RUN python -m compileall -q backend
USER 10001:10001
VOLUME /data
EXPOSE 8000
# Ready means that the engines are loaded, which the first start spends some time on.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health/ready', timeout=4)"]
# Without API_KEYS the first start makes a key, prints it and keeps it in the volume.
CMD ["sh", "-c", "aperta migrate && exec aperta serve --make-key /data/api-key"]
