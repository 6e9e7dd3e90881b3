# The engine of compose.cluster.yaml, out of Debian's package: BASE is any image of Debian.
ARG BASE=debian:trixie-slim
FROM ${BASE}
USER root
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nats-server \
    && rm -rf /var/lib/apt/lists/*
USER nobody
EXPOSE 4222
STOPSIGNAL SIGTERM
ENTRYPOINT ["nats-server"]
CMD ["-js", "-sd", "/tmp/nats"]
