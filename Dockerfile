# syntax=docker/dockerfile:1
FROM python:3.13-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/riacho
# The lock alone first: the layer with the libraries is built again only when the lock changes.
COPY locks/runtime.txt locks/build.txt locks/
RUN /opt/riacho/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
    -r locks/build.txt -r locks/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY pipeline pipeline
COPY stages stages
COPY api api
COPY benchmarks benchmarks
RUN /opt/riacho/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.13-slim-bookworm
RUN useradd --create-home --uid 10001 riacho \
    && install --directory --owner riacho /var/lib/riacho /var/cache/riacho
COPY --from=build /opt/riacho /opt/riacho
ENV PATH=/opt/riacho/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RIACHO_DATA_FOLDER=/var/lib/riacho \
    RIACHO_AUDIO_CACHE=/var/cache/riacho \
    HF_HOME=/var/cache/riacho/hub
USER 10001
WORKDIR /var/lib/riacho
VOLUME ["/var/lib/riacho", "/var/cache/riacho"]
# Anybody who reaches the port needs a key: RIACHO_HTTP_KEYS, see `riacho key new`; without one it does not start.
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["riacho"]
CMD ["up", "--host", "0.0.0.0"]
