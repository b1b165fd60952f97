"""The network of the page on which one draws, and how often it is right.

    python -m benchmarks.draw choose     how much to distort what it is trained on
    python -m benchmarks.draw train      trains it: benchmarks/results/draw.keras
    python -m benchmarks.draw test       how often it is right
    python -m benchmarks.draw phone      how long an answer takes, on the built page

All write into ``benchmarks/results/draw.json``.

It is a prototypical network, trained on characters that the package draws itself, stroke by stroke:
those of the training scripts of ``mlutils.data.glyphs``.  No drawing of a person is among them.
Everything is seen as on the page: strokes, made a picture by ``strokes.picture``.
Omniglot's background alphabets are what was chosen by, its evaluation alphabets the test.
"""

import json
import sys
import time
from pathlib import Path

import mlutils  # first: it silences the import of TensorFlow

import keras  # isort: skip
import numpy as np
from playwright.sync_api import sync_playwright

from benchmarks import portable, strokes
from mlutils import PrototypicalNetwork, Score
from mlutils.data import Characters, glyphs, lake_runs, omniglot
from mlutils.data.plumbing import rendering
from mlutils.data.plumbing.cache import cached_arrays
from tools import draw as page
from tools.browser import BOOK, chromium

RESULTS = Path(__file__).parent / "results"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FACES = "DejaVuSans", "DejaVuSansMono", "DejaVuSerif"
DRAWINGS = 24  # of each character, to train on
TASKS = 400
# The numbers that the page's twenty characters have in Omniglot's alphabet Asomtavruli (Georgian).
IN_OMNIGLOT = 1, 2, 4, 6, 7, 9, 10, 11, 12, 13, 17, 19, 20, 26, 27, 30, 34, 35, 36, 38

# ---------------------------------------------------------------- characters


def pictures(drawings, pad=1.0):
    """Of many drawings, bytes ``(n, 28, 28, 1)``."""
    found = [np.rint(255 * strokes.picture(drawing, pad)) for drawing in drawings]
    return np.stack(found).astype(np.uint8)


def redrawn(split, strength=1.0, seed=0):
    """The characters of a split of the glyphs that are line drawings, each drawn anew."""
    known = glyphs(split)

    def make():
        random = np.random.default_rng(seed)
        prints = {i: prints_of(name) for i, name in enumerate(known.names)}
        prints = {i: some for i, some in prints.items() if some}
        images = [
            pictures(
                strokes.redrawn(some[n % len(some)], random, strength) for n in range(DRAWINGS)
            )
            for some in prints.values()
        ]
        return {"images": np.stack(images), "kept": np.array(list(prints))}

    arrays = cached(f"redrawn-{split}-{strength}-{seed}", make)
    kept = known.subset(arrays["kept"].tolist())
    return Characters(arrays["images"], kept.names, kept.scripts, "redrawn from prints")


def cached(name, make):
    """Arrays that take minutes to make; made anew when the strokes are made otherwise."""
    recipe = rendering.recipe(strokes.__file__)
    return cached_arrays(f"{name}-{recipe}.npz", make, lambda arrays: True)


def prints_of(character):
    """Its strokes in each face that has it as a line drawing."""
    faces = [face for face in FACES if ord(character) in rendering.coverage(face)]
    found = [strokes.of_print(character, face) for face in faces]
    return [one for one in found if one is not None]


def by_hand(split):
    """Omniglot's drawings, traced: the strokes of its pictures' thinned lines."""

    def make():
        ink = omniglot(split, 105).x[..., 0] > 127
        thin = np.concatenate([strokes.thinned(part) for part in np.array_split(ink, 50)])
        return {"images": pictures([strokes.traced(one) for one in thin], pad=105)}

    known = omniglot(split)
    images = cached(f"traced-{split}", make)["images"]
    return Characters(
        images.reshape(known.images.shape), known.names, known.scripts, "Omniglot, traced"
    )


# ---------------------------------------------------------------- training


def trained(characters, steps, filters=64):
    """A prototypical network after so many tasks of 60 characters, turned ones beside them."""
    keras.utils.set_random_seed(0)
    learner = PrototypicalNetwork(mlutils.conv4(filters=filters))
    tasks = characters.turned().episodes(ways=60, shots=1, queries=2, meta_batch=1)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    learner.compile(keras.optimizers.Adam(rate, clipnorm=1.0), LOSS, steps_per_execution=20)
    learner.fit(tasks, steps_per_epoch=steps // 10, epochs=10, verbose=2)
    return learner


def train(steps=2000):
    """The network of the page, its weights rounded to 16 bits, as the page has them."""
    learner = trained(redrawn("train"), steps)
    learner.set_weights([w.astype(np.float16).astype(np.float32) for w in learner.get_weights()])
    portable.save(learner, RESULTS / "draw.keras")
    return {"steps": steps, "validation": validation(learner)}


def choose(steps=600, filters=32):
    """Small networks, by how much the training drawings differ from the prints."""
    return {
        "steps": steps,
        "filters": filters,
        "validation": {
            f"strength {strength}": validation(trained(redrawn("train", strength), steps, filters))
            for strength in (0.5, 1.0)
        },
    }


def validation(learner):
    """Among twenty characters of one background alphabet."""
    return shown(mlutils.evaluate(learner, runs(by_hand("background"), 20), TASKS))


# ---------------------------------------------------------------- the test


def runs(characters, ways):
    """One person draws characters of one alphabet once each, another draws them again."""
    return lake_runs(characters, ways=ways, meta_batch=20, seed=1)


def anywhere(characters, ways):
    """The same with characters from all alphabets, each drawn by two people."""
    return characters.episodes(ways=ways, shots=1, queries=1, meta_batch=20, seed=1)


def shown(score):
    return {"accuracy": round(100 * score.mean, 1), "ci95": round(100 * score.ci95, 1)}


def learners():
    """The page's network, the same before its training, and none."""
    keras.utils.set_random_seed(0)
    pixels = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    return {
        "trained": keras.saving.load_model(RESULTS / "draw.keras"),
        "untrained": PrototypicalNetwork(mlutils.conv4()),
        "pixels": PrototypicalNetwork(pixels),
    }


def test():
    """Accuracies of each learner, by kind of task."""
    hand = by_hand("evaluation")
    tasks = {
        f"{ways} {where}": deal(hand, ways)
        for where, deal in (("of one alphabet", runs), ("of all", anywhere))
        for ways in (5, 20)
    }
    return {
        "tasks": TASKS,
        "accuracy": {
            name: {
                kind: shown(mlutils.evaluate(learner, some, TASKS)) for kind, some in tasks.items()
            }
            for name, learner in learners().items()
        },
        "sure": {kind: sure(learners()["trained"], some) for kind, some in tasks.items()},
        "page": {name: shown(of_the_page(learner)) for name, learner in learners().items()},
    }


def of_the_page(learner):
    """The page's twenty characters, drawn for Omniglot by twenty people: their accuracies.

    The support set is what the page shows, the strokes of the print.
    """
    hand = by_hand("background").of_scripts("Asomtavruli_(Georgian)")
    printed = pictures(map(page.placed, page.script().values()), page.PAD)
    predict = learner.adapt(printed / np.float32(255), np.arange(20))
    people = hand.images[np.array(IN_OMNIGLOT) - 1].swapaxes(0, 1) / np.float32(255)
    return Score([np.mean(np.argmax(predict(x), axis=1) == np.arange(20)) for x in people], True)


def sure(learner, tasks):
    """Of answers with a share of 90 % or more: how many there are, and how many are right."""
    shares, right = [], []
    for (x, y, query_x), query_y in tasks.take(TASKS // 20):
        found = keras.ops.softmax(learner((x, y, query_x))).numpy()
        shares.append(found.max(axis=-1).ravel())
        right.append(np.equal(found.argmax(axis=-1), query_y).ravel())
    shares, right = np.concatenate(shares), np.concatenate(right)
    often = shares >= 0.9
    return {"answers": round(100 * often.mean(), 1), "right": round(100 * right[often].mean(), 1)}


# ---------------------------------------------------------------- the page


def phone(presses=20):
    """Milliseconds per answer on the page of the built book, a phone's width, six times slower.

    An answer is what happens after a stroke: the picture, the embedding, the comparison with the
    twenty characters, and the bars.
    """
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium())
        tab = opened.new_page(viewport={"width": 390, "height": 844})
        tab.goto((BOOK / "book" / "draw.html").as_uri())
        tab.wait_for_timeout(3000)
        slower = tab.context.new_cdp_session(tab)
        found = {}
        for rate in (1, 6):
            slower.send("Emulation.setCPUThrottlingRate", {"rate": rate})
            times = tab.evaluate(TIMED, presses)
            found[f"slowed {rate} times"] = {
                "median": round(float(np.median(times)), 1),
                "least": round(min(times), 1),
                "most": round(max(times), 1),
            }
        return {"answers": presses, "milliseconds": found, "bytes": page.TARGET.stat().st_size}


# With as many points as a hand would make: ten for each of a stored stroke's.
TIMED = """async (presses) => {
  const { query } = PLAYGROUNDS[1];
  const dense = (stroke) => stroke.slice(1).flatMap(([x, y], i) =>
    Array.from({ length: 10 }, (_, k) =>
      [x + (stroke[i][0] - x) * k / 10, y + (stroke[i][1] - y) * k / 10]));
  const times = [];
  for (let i = 0; i < presses; i++) {
    const drawing = SCRIPT[i % SCRIPT.length].drawings[1].map(dense);
    const start = performance.now();
    query.show(drawing);
    PLAYGROUNDS[1].changed();
    document.body.getBoundingClientRect(); // the layout, too
    times.push(performance.now() - start);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return times;
}"""
PARTS = {"choose": choose, "train": train, "test": test, "phone": phone}


def main(name):
    path, start = RESULTS / "draw.json", time.monotonic()
    result = PARTS[name]()
    minutes = round((time.monotonic() - start) / 60, 1)
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stored[name] = {"command": f"python -m benchmarks.draw {name}", "minutes": minutes, **result}
    text = json.dumps(stored, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
