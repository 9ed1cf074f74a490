// One panel for each operation of the chosen model.

import { ApiError, ask, call, listModels, stream } from "./api.js";
import { Pad } from "./pad.js";

const DRAWABLE = 64; // pixels: larger images are uploaded only
const byId = (id) => document.getElementById(id);
const selection = byId("model");
let models = [];

const NAMES = {
  task: "Task", network: "Network", parameters: "Parameters", context: "Context (tokens)",
  documents: "Documents", chunks: "Chunks",
};
const METRICS = ["test/accuracy", "val/accuracy", "test/loss", "val/loss", "test/bleu", "val/mae"];

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function showProblem(error) {
  const place = byId("problem");
  place.hidden = !error;
  place.textContent = error ? error.message : "";
  if (error instanceof ApiError && error.status === 401) byId("access").hidden = false;
}

/** Run an action; show its error and mark the place of its result as busy meanwhile. */
async function attempt(place, action) {
  showProblem(null);
  place?.classList.add("busy");
  try {
    await action();
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error);
  } finally {
    place?.classList.remove("busy");
  }
}

function percent(value) {
  const text = (100 * value).toFixed(1);
  return `${text === "100.0" && value < 1 ? ">99.9" : text} %`;
}

/** Show rows of [name, value, text]: a bar from 0 to the largest possible value, 1. */
function showBars(place, rows) {
  const list = element("dl", "", "bars");
  rows.forEach(([name, value, text], number) => {
    const bar = element("div", "", "bar");
    const filled = element("span");
    filled.style.setProperty("--part", `${100 * Math.max(0, Math.min(1, value))}%`);
    bar.append(filled);
    bar.setAttribute("aria-hidden", "true");
    list.append(element("dt", name, number ? "" : "best"), bar, element("dd", text));
  });
  place.replaceChildren(list);
}

function showPredictions(place, prediction) {
  const rows = prediction.map(({ label, probability }) => [label, probability, percent(probability)]);
  showBars(place, rows);
}

/** Show a text with marked spans: [start, end, element for the text]. Offsets count code points. */
function showSpans(place, text, spans) {
  const points = Array.from(text);
  const slice = (start, end) => points.slice(start, end).join("");
  let end = 0;
  const parts = [];
  for (const span of spans) {
    parts.push(slice(end, span.start), span.mark(slice(span.start, span.end)));
    end = span.end;
  }
  place.replaceChildren(...parts, slice(end));
}

function showWords(panel, text, { label, words }) {
  const largest = Math.max(...words.map((word) => Math.abs(word.weight)), 1e-9);
  const spans = words.map((word) => ({
    ...word,
    mark: (shown) => {
      const marked = element("span", shown, `word ${word.weight > 0 ? "for" : "against"}`);
      marked.style.setProperty("--strength", (0.75 * Math.abs(word.weight)) / largest);
      marked.title = `${word.weight > 0 ? "+" : ""}${(100 * word.weight).toFixed(1)} points`;
      return marked;
    },
  }));
  showSpans(panel.querySelector(".text-shown"), text, spans);
  const points = (weight) => `${weight > 0 ? "+" : "−"}${Math.abs(100 * weight).toFixed(1)}`;
  const order = [...words].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, 5);
  const listed = order.map((word) => `${word.word} (${points(word.weight)})`).join(", ");
  panel.querySelector(".strongest").textContent = `Strongest for “${label}”, in points: ${listed}`;
  panel.querySelector(".words").hidden = !words.length;
}

/** Show a passage; citations are spans of the document, offsets in characters of it. */
function passageItem(passage, citations) {
  const item = element("li");
  const where = [passage.document, passage.heading].filter(Boolean).join(" › ");
  const place = `characters ${passage.start}–${passage.end}, search score ${passage.score.toFixed(2)}`;
  const text = element("blockquote", "", "text-shown");
  const spans = citations
    .map(({ start, end }) => ({
      start: Math.max(start, passage.start) - passage.start,
      end: Math.min(end, passage.end) - passage.start,
      mark: (shown) => element("mark", shown),
    }))
    .sort((a, b) => a.start - b.start);
  showSpans(text, passage.text, spans);
  item.append(element("p", where, "document"), element("p", place, "hint"), text);
  return item;
}

function showAnswer(panel, asked, found) {
  const shown = element("p", found.answer, found.abstained ? "answer none" : "answer");
  const bars = element("div");
  showBars(bars, [["Score", found.score, percent(found.score)]]);
  const searched = found.question === asked ? [] : [element("p", `Searched: ${found.question}`, "hint")];
  panel.querySelector(".result").replaceChildren(shown, ...searched, bars);
  const overlaps = (passage) => found.citations.filter((citation) =>
    citation.document === passage.document
      && citation.start < passage.end && citation.end > passage.start);
  const [cited, others] = [".cited", ".others"].map((name) => panel.querySelector(name));
  cited.replaceChildren();
  others.replaceChildren();
  for (const passage of found.passages) {
    const citations = overlaps(passage);
    (citations.length ? cited : others).append(passageItem(passage, citations));
  }
  panel.querySelector("h3").hidden = !cited.childElementCount;
  panel.querySelector("details").hidden = !others.childElementCount;
  panel.querySelector(".sources").hidden = !found.passages.length;
}

function base64(blob) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.split(",")[1]);
    reader.readAsDataURL(blob);
  });
}

/** Submit a form by its button or by Ctrl + Enter; only the last of several requests counts. */
function onSubmit(panel, action) {
  const form = panel.querySelector("form");
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(panel.querySelector(".result"), action);
  });
}

function exampleText(model, operation) {
  const example = model.examples?.[operation]?.inputs?.[0];
  return typeof example === "string" ? example : "";
}

const PANELS = {
  "classify-image": (panel, model) => {
    const result = panel.querySelector(".result");
    const seen = panel.querySelector(".seen");
    const canvas = panel.querySelector(".pad");
    let running = new AbortController();
    const classify = (blob) => {
      running.abort();
      running = new AbortController();
      const { signal } = running;
      return attempt(result, async () => {
        seen.querySelector("img").src = URL.createObjectURL(blob);
        seen.hidden = false;
        const body = { inputs: [{ image: await base64(blob) }], top_k: 10 };
        showPredictions(result, (await call(model.id, "classify", body, signal)).predictions[0]);
      });
    };
    const example = new Image();
    example.onload = () => {
      const size = example.naturalWidth;
      if (size > DRAWABLE) return;
      for (const part of [canvas, panel.querySelector(".clear"), panel.querySelector(".hint")]) {
        part.hidden = false;
      }
      const changed = () => {
        if (pad.isEmpty) {
          running.abort();
          result.replaceChildren();
          seen.hidden = true;
        } else pad.image().toBlob(classify);
      };
      const pad = new Pad(canvas, size, changed);
      panel.querySelector(".clear").addEventListener("click", () => {
        pad.clear();
        changed();
      });
    };
    for (const part of [canvas, panel.querySelector(".clear"), panel.querySelector(".hint")]) {
      part.hidden = true;
    }
    example.src = `data:image/png;base64,${model.examples.classify.inputs[0].image}`;
    panel.querySelector(".file").addEventListener("change", (event) => {
      if (event.target.files.length) classify(event.target.files[0]);
    });
  },

  "classify-text": (panel, model) => {
    const text = panel.querySelector(".text");
    text.value = exampleText(model, "classify");
    onSubmit(panel, async () => {
      const inputs = [text.value];
      const { predictions } = await call(model.id, "classify", { inputs, top_k: 10 });
      showPredictions(panel.querySelector(".result"), predictions[0]);
      panel.querySelector(".words").hidden = true;
      if (!model.operations.includes("explain")) return;
      const { explanations } = await call(model.id, "explain", { inputs });
      showWords(panel, inputs[0], explanations[0]);
    });
  },

  generate: (panel, model) => {
    const [text, written, stop] = [".text", ".written", ".stop"].map((s) => panel.querySelector(s));
    const button = panel.querySelector("button");
    const [tokens, speed] = [panel.querySelector(".tokens"), panel.querySelector(".speed")];
    let running = null;
    text.value = model.chat ? "What is a step ladder?" : exampleText(model, "generate");
    const limit = model.limits?.max_new_tokens;
    if (limit) [tokens.max, tokens.value] = [limit, Math.min(tokens.value, limit)];
    stop.addEventListener("click", () => running?.abort());
    onSubmit(panel, async () => {
      running = new AbortController();
      [button.disabled, stop.disabled] = [true, false];
      written.textContent = model.chat ? "" : text.value;
      speed.textContent = "";
      const body = {
        inputs: [text.value],
        max_new_tokens: Number(tokens.value),
        temperature: Number(panel.querySelector(".temperature").value),
      };
      const started = performance.now();
      try {
        for await (const [kind, data] of stream(model.id, "generate", body, running.signal)) {
          if (kind === "error") throw new ApiError(data.status, data.detail);
          if (kind === "text") written.append(data.text);
          if (kind === "done") {
            const seconds = (performance.now() - started) / 1000;
            const count = data.outputs[0].tokens;
            speed.textContent = `${count} tokens, ${(count / seconds).toFixed(1)} tokens/s`;
          }
        }
      } finally {
        [button.disabled, stop.disabled] = [false, true];
      }
    });
  },

  translate: (panel, model) => {
    const text = panel.querySelector(".text");
    text.value = exampleText(model, "translate");
    onSubmit(panel, async () => {
      const { translations } = await call(model.id, "translate", { inputs: [text.value] });
      panel.querySelector(".result").textContent = translations[0];
    });
  },

  embed: (panel, model) => {
    const [first, second] = [panel.querySelector(".text"), panel.querySelector(".second")];
    [first.value, second.value] = ["A cat is sleeping on the sofa.", "The kitten naps on a couch."];
    onSubmit(panel, async () => {
      const inputs = [first.value, second.value];
      const [a, b] = (await call(model.id, "embed", { inputs })).embeddings;
      const dot = (x, y) => x.reduce((sum, value, index) => sum + value * y[index], 0);
      const similarity = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
      const text = similarity.toFixed(3);
      showBars(panel.querySelector(".result"), [["Cosine similarity", similarity, text]]);
    });
  },

  tag: (panel, model) => {
    const text = panel.querySelector(".text");
    text.value = exampleText(model, "tag");
    onSubmit(panel, async () => {
      const { entities } = await call(model.id, "tag", { inputs: [text.value] });
      const spans = entities[0].map((entity) => ({
        ...entity,
        mark: (shown) => {
          const marked = element("span", shown, "entity");
          marked.append(element("small", entity.kind));
          return marked;
        },
      }));
      const shown = element("p", "", "text-shown");
      showSpans(shown, text.value, spans);
      panel.querySelector(".result").replaceChildren(shown);
      if (!spans.length) panel.querySelector(".result").append(element("p", "No names.", "hint"));
    });
  },

  "predict-text": (panel, model) => {
    const text = panel.querySelector(".text");
    text.value = exampleText(model, "predict");
    onSubmit(panel, async () => {
      const { predictions } = await call(model.id, "predict", { inputs: [text.value] });
      showNumber(panel, predictions[0]);
    });
  },

  "predict-image": (panel, model) => {
    panel.querySelector(".file").addEventListener("change", (event) => {
      attempt(panel.querySelector(".result"), async () => {
        const inputs = [{ image: await base64(event.target.files[0]) }];
        showNumber(panel, (await call(model.id, "predict", { inputs })).predictions[0]);
      });
    });
  },

  answer: (panel) => {
    const [text, topK, restart] = [".text", ".top-k", ".restart"].map((s) => panel.querySelector(s));
    let history = [];
    restart.addEventListener("click", () => {
      history = [];
      restart.disabled = true;
      panel.querySelector(".result").replaceChildren();
      panel.querySelector(".sources").hidden = true;
      text.value = "";
      text.focus();
    });
    onSubmit(panel, async () => {
      const question = text.value;
      const found = await ask({ question, history, top_k: Number(topK.value) });
      showAnswer(panel, question, found);
      history = [...history, { question, answer: found.answer }].slice(-3);
      restart.disabled = false;
    });
  },

  fill_mask: (panel, model) => {
    const text = panel.querySelector(".text");
    text.value = exampleText(model, "fill_mask");
    onSubmit(panel, async () => {
      const { masks } = await call(model.id, "fill_mask", { inputs: [text.value] });
      const bars = masks[0].map((tokens) => {
        const shown = element("div", "");
        const rows = tokens.map(({ token, probability }) => [token, probability, percent(probability)]);
        showBars(shown, rows);
        return shown;
      });
      panel.querySelector(".result").replaceChildren(...bars);
    });
  },

  nearest: (panel, model) => {
    const text = panel.querySelector(".text");
    text.value = exampleText(model, "nearest");
    onSubmit(panel, async () => {
      const { neighbors } = await call(model.id, "nearest", { inputs: [text.value] });
      const rows = neighbors[0].map(({ word, similarity }) => [
        word, similarity, similarity.toFixed(3),
      ]);
      showBars(panel.querySelector(".result"), rows);
    });
  },
};

function showNumber(panel, number) {
  const shown = element("p", number.toPrecision(4), "number");
  panel.querySelector(".result").replaceChildren(shown);
}

function showFacts(model) {
  const facts = Object.entries(NAMES).map(([key, name]) => [name, model[key]]);
  const metric = METRICS.find((name) => model.metrics?.[name] !== undefined);
  if (metric) facts.push([metric, model.metrics[metric].toPrecision(3)]);
  if (model.labels) facts.push(["Classes", model.labels.length]);
  const rows = facts
    .filter(([, value]) => value !== null && value !== undefined && value !== 0)
    .map(([name, value]) => {
      const row = element("div");
      const text = typeof value === "number" ? value.toLocaleString("en") : value;
      row.append(element("dt", name), element("dd", text));
      return row;
    });
  byId("facts").replaceChildren(...rows);
  byId("about").hidden = false;
}

function showModel(model) {
  showProblem(null);
  showFacts(model);
  const panels = [];
  for (const operation of model.operations) {
    const name = [operation, `${operation}-${model.input}`].find((key) => key in PANELS);
    if (!name) continue;
    const panel = byId(name).content.firstElementChild.cloneNode(true);
    PANELS[name](panel, model);
    panels.push(panel);
  }
  byId("panels").replaceChildren(...panels);
  document.title = `${model.id} – stepladder`;
  history.replaceState(null, "", `#${encodeURIComponent(model.id)}`);
}

async function start() {
  await attempt(null, async () => {
    models = await listModels();
    byId("access").hidden = true;
    selection.replaceChildren(...models.map((model) => new Option(model.id, model.id)));
    selection.disabled = false;
    const asked = decodeURIComponent(location.hash.slice(1));
    const model = models.find((one) => one.id === asked) ?? models[0];
    selection.value = model.id;
    showModel(model);
  });
}

selection.addEventListener("change", () => {
  showModel(models.find((model) => model.id === selection.value));
});
byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", byId("key").value);
  start();
});
start();
