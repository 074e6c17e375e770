// Where the camera goes, drawn on what the tab shows: js_on_load of the pad, which Gradio calls with element and trigger.
const canvas = element.querySelector("canvas");
const pen = canvas.getContext("2d");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const SIDE = canvas.width;
const FARTHEST = 0.5; // widths of the frame from where it begins, at which the pad ends
const SECONDS = 2; // that the preview takes
let path = []; // [right, down] in widths of the frame, by the moments at which the hand was there
let drawing = false;

// The picture as the camera sees it from a place; beyond its edges it is mirrored, as in the program.
const look = ([right, down]) => {
    const picture = element.closest(".columns").querySelector(".result video");
    pen.clearRect(0, 0, SIDE, SIDE);
    if (!(picture?.readyState >= 2)) return;
    for (const column of [-1, 0, 1])
        for (const row of [-1, 0, 1]) {
            pen.save();
            pen.translate((column - right + 0.5) * SIDE, (row - down + 0.5) * SIDE);
            pen.scale(column ? -1 : 1, row ? -1 : 1);
            pen.drawImage(picture, -SIDE / 2, -SIDE / 2, SIDE, SIDE);
            pen.restore();
        }
};

const line = () => {
    pen.lineJoin = pen.lineCap = "round";
    for (const [width, colour] of [[7, "#fff"], [3, "#b94e25"]]) {
        pen.lineWidth = width;
        pen.strokeStyle = colour;
        pen.beginPath();
        pen.moveTo(SIDE / 2, SIDE / 2);
        for (const [right, down] of path) pen.lineTo((right + 0.5) * SIDE, (down + 0.5) * SIDE);
        pen.stroke();
    }
};

const show = () => {
    look([0, 0]);
    line();
};

const play = () => {
    const began = performance.now();
    const step = (now) => {
        const share = Math.max(0, (now - began) / 1000 / SECONDS);
        if (drawing || !path.length) return;
        if (share >= 1) return show();
        look(path[Math.floor(share * path.length)]);
        requestAnimationFrame(step);
    };
    if (calm.matches) show();
    else requestAnimationFrame(step);
};

// Against where the hand set down, which is where the camera begins.
let origin;
const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
const within = (share) => Math.max(-FARTHEST, Math.min(FARTHEST, share));

canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    [drawing, path, origin] = [true, [[0, 0]], place(event)];
    show();
});
canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    path.push(place(event).map((share, axis) => within(share - origin[axis])));
    show();
});
const tell = () => {
    element.querySelector(".pad").dataset.path = JSON.stringify(path);
    trigger("input", {});
};
const finish = () => {
    if (!drawing) return;
    drawing = false;
    if (path.length < 2) path = [];
    tell();
    play();
};
canvas.addEventListener("pointerup", finish);
canvas.addEventListener("pointercancel", finish);
element.querySelector("[data-clear]").addEventListener("click", () => {
    path = [];
    tell();
    show();
});
new IntersectionObserver((changes) => changes.some((change) => change.isIntersecting) && show()).observe(canvas);
