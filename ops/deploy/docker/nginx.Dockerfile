# What is published: nginx in front of the gateway, without root and with nothing of its own to write but /tmp.
FROM nginx:1.28-alpine
COPY ops/deploy/nginx/compose.conf /etc/nginx/nginx.conf
RUN chmod a+r /etc/nginx/nginx.conf && install -d -o 10001 -g 10001 -m 0700 /var/cache/retold
USER 10001:10001
EXPOSE 8080
HEALTHCHECK CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["nginx", "-c", "/etc/nginx/nginx.conf", "-g", "daemon off;"]
CMD []
