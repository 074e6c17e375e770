// Videos within one element of the class "in-step" play as one: what happens to one happens to the others.
() => {
  const TOLERANCE = 0.06; // seconds: half a frame at eight frames per second
  const group = (video) => [...(video.closest?.(".in-step")?.querySelectorAll("video") ?? [])];
  const others = (video) => group(video).filter((other) => other !== video);
  // A loop has no ends: the last moment lies beside the first.
  const apart = (video, other) => {
    const distance = Math.abs(video.currentTime - other.currentTime);
    return Math.min(distance, Math.abs((video.duration || Infinity) - distance));
  };
  const align = (video, followers) => {
    for (const other of followers)
      if (other.readyState > 0 && apart(video, other) > TOLERANCE) other.currentTime = video.currentTime;
  };
  const on = (event, react) => document.addEventListener(event, ({ target }) => react(target), true);
  on("play", (video) => others(video).forEach((other) => other.paused && other.play().catch(() => {})));
  on("pause", (video) => others(video).forEach((other) => other.pause()));
  on("ratechange", (video) => others(video).forEach((other) => (other.playbackRate = video.playbackRate)));
  on("seeking", (video) => align(video, others(video)));
  // Against drift the first one keeps the time; one that is still seeking is left alone until it has arrived.
  on("timeupdate", (video) => {
    if (video === group(video)[0]) align(video, others(video).filter((other) => !other.seeking));
  });
  on("loadeddata", (video) => group(video).forEach((one) => (one.currentTime = 0)));
};
