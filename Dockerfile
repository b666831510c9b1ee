# The base installation with the embedded engine, in an image: docker run IMAGE run scenario.yaml
# Needs dist/*.whl (`make wheel`).
FROM python:3.13-slim
RUN --mount=type=bind,source=dist,target=/dist pip install --no-cache-dir /dist/*.whl
RUN useradd --create-home harness
USER harness
WORKDIR /home/harness
ENTRYPOINT ["harness"]
CMD ["--help"]
