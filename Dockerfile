# The app in a container.
#
#   docker build -t text2video-zero .                             runs on the CPU
#   docker build -t text2video-zero --build-arg DEVICE=cuda .     runs on an NVIDIA GPU (docker run --gpus all)
#   docker run --rm -p 127.0.0.1:7860:7860 -v t2v:/data text2video-zero
#
# /data keeps what must outlive a container: outputs/, models/ (your own) and huggingface/ (what was downloaded).
# What follows the image's name goes to app.py, for example --auth ann:her-password, which is wise as soon as
# others can reach the port. DEVICE is what the app is told to use; `docker run -e DEVICE=...` overrides it.
# TORCH_INDEX: the package index's own torch carries CUDA (5 GB) and runs on the CPU as well. Set this to an
# index of CPU-only torch wheels to get a small image; leave it empty otherwise.
FROM python:3.12-slim

ARG DEVICE=cpu
ARG TORCH_INDEX=""

RUN useradd --create-home --uid 1000 app
WORKDIR /home/app/text2video-zero

# Before the code, so that a changed line of code does not install everything again.
COPY requirements.txt requirements.lock ./
RUN if [ -n "$TORCH_INDEX" ]; then \
        grep -E '^torch(vision)?==' requirements.txt > /tmp/torch.txt \
        && pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" -r /tmp/torch.txt; \
    fi \
    && pip install --no-cache-dir --constraint requirements.lock -r requirements.txt

COPY --chown=1000:1000 . ./
# A volume takes over the owner of the folder that it covers, so the folders must exist as the user's. COPY leaves the folder
# that it fills root's; -R would lay every file of it into the image once more.
RUN mkdir -p /data/outputs /data/models /data/huggingface \
    && ln -s /data/outputs outputs && ln -s /data/models models && chown -R 1000:1000 /data && chown 1000:1000 .

USER 1000
ENV DEVICE=$DEVICE \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HOME=/data/huggingface \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    GRADIO_ANALYTICS_ENABLED=False \
    PYTHONUNBUFFERED=1
VOLUME ["/data"]
EXPOSE 7860

HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=8)"]

# The app listens on all interfaces of the container (GRADIO_SERVER_NAME); who may reach it is decided by -p. Where that is
# its owner alone, TEXT2VIDEO_PRIVATE=1 says so: no password then, all models, and videos stay.
ENTRYPOINT ["sh", "-c", "exec python app.py --device \"$DEVICE\" --output-dir /data/outputs \"$@\"", "app.py"]
