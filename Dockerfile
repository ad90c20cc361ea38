# An image with jaxshare installed. It has never been built: no machine that the authors had runs Docker. A test only
# builds the package from the files that are copied here (tests/test_packaging.py).
#
#   docker build -t jaxshare .                              for CPUs
#   docker build -t jaxshare --build-arg EXTRAS=cuda12 .    for NVIDIA's GPUs; or cuda13; or several: cuda12,tune
#
# docs/install.md says how to run it. MuJoCo's pictures and StarCraft II need system libraries that are not here.
FROM python:3.11-slim AS run
ARG EXTRAS=""
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
WORKDIR /jaxshare
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY jaxshare jaxshare
RUN pip install ".${EXTRAS:+[$EXTRAS]}"
WORKDIR /runs
ENTRYPOINT ["python", "-m"]
CMD ["jaxshare.list"]

# for .devcontainer: what working on the code needs besides
FROM run AS dev
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
ENTRYPOINT []
CMD ["bash"]

# the image that is built if none is named
FROM run
