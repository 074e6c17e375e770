// What the browser does itself.
() => {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const on = (event, react) => document.addEventListener(event, ({ target }) => react(target), true);

  // What the events of a form call. What is entered stays in this browser, by field; values of SAME change nothing.
  const SAME = { __type__: "update" };
  const read = (key) => {
    try {
      return JSON.parse(localStorage.getItem(key)) ?? {};
    } catch {
      return {};
    }
  };
  const stored = {}; // the key of a form -> when something was
  const store = (key, values) => {
    stored[key] = performance.now();
    try {
      localStorage.setItem(key, JSON.stringify({ ...read(key), ...values }));
    } catch {} // a browser that keeps nothing
  };
  const picked = (names, values) => names.map((name) => (name in values ? values[name] : SAME));
  // What an event fills in takes Gradio a while to show: what is read of a form meanwhile is neither the old nor the new.
  const SETTLES = 1000; // milliseconds
  globalThis.forms = {
    // The person has been at a form: what she has changed is kept, and the presets that set it lose their mark.
    // initial: the values of a new form by name.  rows: the names that a row of presets sets, by its id.
    note(values, id, key, names, initial, rows) {
      const known = { ...initial, ...read(key) };
      const differs = (name, index) => String(values[index] ?? "") !== String(known[name] ?? "");
      const changed = names.filter(differs);
      const settled = performance.now() - (stored[key] ?? -SETTLES) >= SETTLES;
      if (!settled) noteSoon(document.getElementById(id), SETTLES);
      if (!settled || !changed.length) return Object.keys(rows).map(() => SAME);
      const lose = Object.keys(rows).filter((row) => rows[row].some((name) => changed.includes(name)));
      const entries = changed.map((name) => [name, values[names.indexOf(name)]]);
      store(key, Object.fromEntries([...entries, ...lose.map((row) => [row, null])]));
      return Object.keys(rows).map((row) => (lose.includes(row) ? null : SAME));
    },
    // A run begins with these values, of which the first ones have names; a file has none.
    keep(key, names, values) {
      const entries = names.map((name, index) => [name, values[index]]);
      store(key, Object.fromEntries(entries.filter(([name]) => name)));
      return values;
    },
    fill(key, names, task, asked) {
      if (!asked) return names.map(() => SAME);
      if (asked.show) document.querySelector(`#tasks [data-tab-id="${task}"]`)?.click();
      store(key, asked.values);
      return picked(names, asked.values);
    },
    // One more LoRA; that one is there, whatever its weight, is no mistake. The list it was chosen from is free again.
    add(key, name, lines) {
      const there = (lines ?? "").split("\n").filter((line) => line.trim());
      const named = there.map((line) => line.trim().replace(/:[^:/\\]*$/, ""));
      const loras = [...there, ...(name && !named.includes(name) ? [name] : [])].join("\n");
      store(key, { loras });
      return [null, loras];
    },
    // The path that was drawn on a pad, as key frames that even out a hand's tremor, for so many frames.
    path(id, key, frames) {
      const KEYS = 8;
      const path = JSON.parse(document.querySelector(`#${id} .pad`).dataset.path ?? "[]");
      const keys = path.length ? Math.min(KEYS, frames - 1) : 0;
      const texts = Array.from({ length: keys }, (_, index) => {
        const share = (index + 1) / keys;
        const [right, down] = path[Math.round(share * (path.length - 1))];
        return `${Math.round(share * (frames - 1))}: right ${right.toFixed(3)} down ${down.toFixed(3)}`;
      });
      const values = { camera_keys: texts.join("; "), camera_eased: keys === 0 };
      store(key, values);
      return [values.camera_keys, values.camera_eased];
    },
    kept: (key, names) => picked(names, read(key)),
    // The values of the example that was clicked last among those of an element.
    choose(id, key, names, examples) {
      const values = examples[document.getElementById(id).closest(".columns").dataset.filling];
      store(key, values);
      return picked(names, values);
    },
    // All of it has come: what was to begin meanwhile, begins once Gradio has drawn the files, or has not for a while.
    // examples: for each the names of its files by the ids of their fields.
    arrived(id, examples) {
      const MOST_MILLISECONDS = 10_000;
      const columns = document.getElementById(id).closest(".columns");
      const until = performance.now() + MOST_MILLISECONDS;
      const look = (now) => {
        const drawn = Object.entries(examples[columns.dataset.filling] ?? {}).every(([field, name]) =>
          document.querySelector(`#${field} .file-preview`)?.textContent.includes(name),
        );
        if (!drawn && now < until) return requestAnimationFrame(look);
        const held = document.getElementById(columns.dataset.held);
        delete columns.dataset.filling;
        delete columns.dataset.held;
        held?.click();
      };
      requestAnimationFrame(() => requestAnimationFrame(look));
    },
  };

  // One event notes a whole form, once its person pauses: with one for each field, Gradio's page took a third longer to
  // come up.
  const PAUSE = 300; // milliseconds
  const waiting = new Map(); // button -> its timer
  const noteSoon = (button, milliseconds = PAUSE) => {
    clearTimeout(waiting.get(button));
    waiting.set(button, setTimeout(() => button.click(), milliseconds));
  };
  for (const event of ["input", "change", "keyup", "click"]) {
    on(event, (target) => {
      const button = target.closest?.(".columns")?.querySelector("button.noting");
      if (button && !target.closest(".result, .actions")) noteSoon(button);
    });
  }

  // From a click on an example until all of it is in the form, whoever presses a button that begins a run is patient.
  document.addEventListener(
    "click",
    (event) => {
      const columns = event.target.closest?.(".columns");
      const example = event.target.closest?.("[data-example]");
      const begins = event.target.closest?.(".begins");
      if (example) {
        columns.dataset.filling = example.dataset.example;
        delete columns.dataset.held;
      } else if (begins && "filling" in columns.dataset) {
        event.stopImmediatePropagation();
        columns.dataset.held = begins.id;
      }
    },
    true,
  );

  // Ctrl+Enter, or Command+Enter, makes the video of the tab that is open.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    const run = [...document.querySelectorAll("button.run")].find((button) => button.offsetParent);
    if (!run) return;
    event.preventDefault();
    document.activeElement?.blur(); // what was typed last is sent along
    requestAnimationFrame(() => run.click());
  });

  // On a phone what comes lies below the fold: once a run has begun, the page goes there.
  let awaited;
  document.addEventListener("click", ({ target }) => {
    const columns = target.closest?.(".actions, .confirmation") && target.closest(".columns");
    if (!columns || getComputedStyle(columns).gridTemplateColumns.split(" ").length > 1) return;
    const result = columns.querySelector(".result");
    awaited?.disconnect();
    awaited = new MutationObserver(() => {
      if (!result.querySelector(".status .bar")) return;
      awaited.disconnect();
      result.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
    });
    awaited.observe(result, { childList: true, subtree: true });
  });

  // Who wants no motion gets none that she did not start.
  let touched = null;
  for (const event of ["pointerdown", "keydown"]) on(event, (target) => (touched = target));
  const byHand = (video) => (video.closest?.(".in-step") ?? video.closest?.(".block"))?.contains(touched);
  const unwanted = (video) => calm.matches && !byHand(video);
  on("play", (video) => unwanted(video) && video.pause());

  // Gradio's footer says the names of its pictures twice.
  for (const picture of document.querySelectorAll("footer img")) picture.alt = "";

  // Gradio's players have a label beside them, and no name.
  on("loadedmetadata", (video) => {
    const label = video.closest(".block")?.querySelector("label")?.textContent.trim();
    if (label && !video.hasAttribute("aria-label")) video.setAttribute("aria-label", label);
  });

  // Videos within one element of the class "in-step" play as one: what happens to one happens to the others.
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
  on("play", (video) => {
    if (!unwanted(video)) others(video).forEach((other) => other.paused && other.play().catch(() => {}));
  });
  on("pause", (video) => others(video).forEach((other) => other.pause()));
  on("ratechange", (video) => others(video).forEach((other) => (other.playbackRate = video.playbackRate)));
  on("seeking", (video) => align(video, others(video)));
  // Against drift the first one keeps the time; one that is still seeking is left alone until it has arrived.
  on("timeupdate", (video) => {
    if (video === group(video)[0]) align(video, others(video).filter((other) => !other.seeking));
  });
  on("loadeddata", (video) => group(video).forEach((one) => (one.currentTime = 0)));
};
