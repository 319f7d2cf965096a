# The image of every Airflow service in docker-compose.yaml: Airflow, and this provider.
ARG AIRFLOW_VERSION=3.3.2
FROM apache/airflow:${AIRFLOW_VERSION}-python3.12
ARG AIRFLOW_VERSION

# It runs as the image's own user, airflow (50000), who is not root.
WORKDIR /opt/airflow/provider
COPY --chown=airflow:root pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY --chown=airflow:root airflow_provider_heapbraze ./airflow_provider_heapbraze
COPY --chown=airflow:root constraints ./constraints
RUN pip install --no-cache-dir --constraint constraints/airflow-3.3.txt \
      "apache-airflow[celery,postgres]==${AIRFLOW_VERSION}" ".[redis]"
WORKDIR /opt/airflow
