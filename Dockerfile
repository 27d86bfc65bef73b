# Build from the tracked files alone, so that no image of a patient gets into the container:
#
#   git archive HEAD | docker build -t denoised-smoothing -
#   docker run --rm denoised-smoothing              # ./run.sh
#   docker run --rm denoised-smoothing ./test.sh
#
# For CUDA: docker build --build-arg BASE=nvidia/cuda:12.6.3-base-ubuntu24.04, and docker run --gpus all.
# For the exact versions behind the committed results: --build-arg LOCKED=1.
ARG BASE=python:3.13-slim
FROM ${BASE}

# Images for CUDA bring no Python.
RUN command -v python3 >/dev/null || { apt-get update && \
    apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; }

WORKDIR /project
ARG LOCKED=0
ENV LOCKED=${LOCKED} PIP_NO_CACHE_DIR=1

# In a layer of its own: it is made anew only if the requirements change.
COPY requirements.txt requirements-lock.txt setup.sh ./
RUN bash -c 'set -euo pipefail && source ./setup.sh && set_up'

COPY . .
RUN test ! -e .git || { echo 'build it with: git archive HEAD | docker build -t denoised-smoothing -' >&2; exit 1; }

CMD ["./run.sh"]
