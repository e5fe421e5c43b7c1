# Parley's image: page, wheel, slim runtime that is not root. See docs/decisions/0006-what-the-image-ships.md.
FROM node:20-bookworm-slim AS page
WORKDIR /src
COPY web/package.json web/package-lock.json web/.npmrc web/
RUN cd web && npm ci --no-audit --no-fund
COPY web web
RUN cd web && npm run build

FROM rust:1.95-bookworm AS wheel
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir maturin==1.16.0
COPY pyproject.toml README.md LICENSE THIRD-PARTY.md ./
COPY engine engine
COPY bridge bridge
COPY sfu sfu
COPY migrations migrations
COPY --from=page /src/bridge/gateways/web/static bridge/gateways/web/static
RUN /venv/bin/maturin build --release --out /wheels

FROM python:3.11-slim-bookworm
# Volumes mounted on these two directories take over their owner.
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/parley parley && \
    install -d -o parley -m 0700 /var/lib/parley /run/parley
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl && rm -rf /wheels
USER parley
WORKDIR /var/lib/parley
EXPOSE 8480/tcp 8481/tcp 8470/udp
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8482/healthz', timeout=2)"]
ENTRYPOINT ["parley"]
CMD ["run", "-c", "/etc/parley/config.yaml"]
