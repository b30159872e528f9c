# Build and run the demo, results kept in ./results of the host:
#   docker build -t lossyless . && docker run --rm -v "$PWD/results:/app/results" lossyless
# On a GPU machine add `--gpus all`; with data-loading workers add `--ipc=host`.
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 lossyless \
    && install --directory --owner=lossyless --group=lossyless /app /app/results
USER lossyless
WORKDIR /app

# The requirements alone first: a change of the sources does not install everything again.
COPY --chown=lossyless requirements requirements
COPY --chown=lossyless bin/setup.sh bin/setup.sh
RUN PIP_NO_CACHE_DIR=1 bash bin/setup.sh

COPY --chown=lossyless . .
ENV PATH="/app/.venv/bin:$PATH"
CMD ["bash", "bin/demo.sh"]
