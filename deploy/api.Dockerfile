# The API, and the command line that migrates the database. No torch, no engine.
# Build from the repository's root: docker build -f deploy/api.Dockerfile .

FROM python:3.11-slim AS libraries
WORKDIR /build
COPY pyproject.toml constraints.txt deploy/image_requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python image_requirements.py core api > requirements.txt \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install --disable-pip-version-check \
        -c constraints.txt -r requirements.txt

FROM python:3.11-slim AS api
LABEL org.opencontainers.image.title="pressrun-api" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/pressrun --create-home pressrun \
    && install -d -m 0700 -o pressrun -g pressrun /var/lib/pressrun/scratch
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PRESSRUN_SCRATCH_DIR=/var/lib/pressrun/scratch
COPY --from=libraries /opt/venv /opt/venv
WORKDIR /srv/pressrun
COPY LICENSE ./
COPY shared/ shared/
COPY migrations/ migrations/
COPY pressrun/ pressrun/
COPY api/ api/
# Compiled here, since the account that runs it can't write to the code.
RUN python -m compileall -q .
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# /healthz asks nobody else: restarting this process would not bring a lost database back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["python", "-m", "gunicorn", "-c", "api/gunicorn_conf.py", "--bind", "0.0.0.0:8080", "api.wsgi:app"]
