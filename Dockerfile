# The chat in a container. Nothing is installed: it needs Python alone. The history is in /data.
#
#   docker build -t chat .
#   docker run -d -p 8000:8000 -v chat:/data --ulimit nofile=16384 chat
FROM python:3.13-slim
WORKDIR /chat
COPY chat_server.py certificate.py command_line.py console.py log_repeats.py ./
COPY chat chat
COPY public public
COPY rfc6455 rfc6455
RUN install -d -o nobody -g nogroup -m 700 /data
USER nobody
VOLUME /data
EXPOSE 8000
HEALTHCHECK CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://localhost:8000/healthz', timeout=5)"]
ENTRYPOINT ["python3", "chat_server.py", "--host", "0.0.0.0", "--history", "/data/chat.db"]
