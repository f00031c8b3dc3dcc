# One image for server, worker and migrations. For GPUs build on a host that has them, or with
# --build-arg TORCH_SPEC=torch==2.13.0.
FROM python:3.12-slim AS build
ARG TORCH_SPEC=""
RUN apt-get update && apt-get install -y --no-install-recommends npm && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN TORCH_SPEC="$TORCH_SPEC" VENV=/app/.venv scripts/setup.sh && rm -rf node_modules

FROM python:3.12-slim
RUN useradd --create-home sparseboard && mkdir /data && chown sparseboard /data
COPY --from=build --chown=sparseboard /app /app
USER sparseboard
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH SPARSEBOARD_DATA_DIR=/data
VOLUME /data
CMD ["sparseboard", "version"]
