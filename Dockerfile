# Runs `make bench`: docker build -t gazebench . && docker run --rm -v "$PWD/runs:/gazebench/runs" gazebench
# Anything else of the Makefile: docker run --rm gazebench make bench METHOD=hclora (with --gpus all on a GPU).
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /gazebench
# The environment first: it is made anew only when the dependencies change.
COPY Makefile pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY gazebench gazebench
COPY methods methods
COPY datasets datasets
COPY splits splits
COPY leaderboards leaderboards
RUN make .venv/.gazebench-installed
COPY . .

CMD ["make", "bench"]
