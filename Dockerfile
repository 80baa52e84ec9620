# The server and all commands of the core install, on a CPU:
#
#   docker build -t rooftrace .
#   docker run -p 8000:8000 -e ROOFTRACE_API_KEY=… -v jobs:/data/jobs rooftrace
#   docker run -v "$PWD:/data" --user "$(id -u)" rooftrace predict scene.tif -o out
FROM python:3.12-slim AS wheel
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel /src

FROM python:3.12-slim
COPY constraints.txt /tmp/
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir --constraint /tmp/constraints.txt \
    "$(echo /wheel/*.whl)[serve,parquet,s3,services,stac]" \
    && useradd --create-home --uid 1000 rooftrace \
    && install --directory --owner rooftrace /data /data/jobs
USER rooftrace
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
ENTRYPOINT ["rooftrace"]
CMD ["serve", "--host", "0.0.0.0", "--jobs", "/data/jobs"]
