// What the widgets compute, as the package computes it. No page is needed: Node can load this file, too.
// tests/test_widgets.py compares each function with the Python function that its comment names.
globalThis.courseNumbers = (() => {
  'use strict'

  const sum = values => values.reduce((a, b) => a + b, 0)
  const mean = values => sum(values) / values.length

  // ---- mixup.py

  const blend = (a, b, t) => Array.from(a, (v, i) => t * v + (1 - t) * b[i]) // blend: t of `a`, the rest of `b`

  // a row of mixup's targets: of class numbers `first` and `second`, with a share of `lam` for the first
  const mixedTarget = (first, second, lam, n) =>
    Array.from({length: n}, (_, k) => lam * (k === first) + (1 - lam) * (k === second))

  // ---- smoothing.py

  const smoothTarget = (eps, n) => ({right: 1 - eps + eps / n, other: eps / n}) // smooth_targets
  const logitGap = (eps, n) => Math.log((n * (1 - eps)) / eps + 1) // logit_gap; infinite for eps = 0

  // the probability of the right class whose logit is `gap` above those of all n - 1 others
  const confidence = (gap, n) => 1 / (1 + (n - 1) * Math.exp(-gap))

  // smooth_cross_entropy of such logits
  function smoothLoss(gap, eps, n) {
    const {right, other} = smoothTarget(eps, n),
      log = -Math.log1p((n - 1) * Math.exp(-gap))
    return -right * log - (n - 1) * other * (log - gap)
  }

  // its gradient with respect to the right logit, p - q
  const smoothSlope = (gap, eps, n) => confidence(gap, n) - smoothTarget(eps, n).right

  // ---- tta.py

  // combine_views, of one image: `plain` is a list, `views` a list of lists
  function combineViews(plain, views, beta = 0.25, reduce = 'mean') {
    if (!views.length) return [...plain]
    if (reduce === 'max') return plain.map((p, k) => Math.max(p, ...views.map(v => v[k])))
    return plain.map((p, k) => beta * p + (1 - beta) * mean(views.map(v => v[k])))
  }

  const largest = values => values.indexOf(Math.max(...values))

  // ---- chapter 12: the ladder, each rung beside the one before it

  // a rung holds `seeds`, `accuracy` and `seconds`, lists of the same length; `t` Student's 97.5% by degrees of freedom
  const ladder = (rungs, t) =>
    rungs.map((rung, i) => {
      const before = rungs[i - 1]
      const d = before
        ? rung.seeds.flatMap((s, k) => {
            const j = before.seeds.indexOf(s)
            return j < 0 ? [] : [rung.accuracy[k] - before.accuracy[j]]
          })
        : []
      return {
        n: rung.seeds.length,
        accuracy: mean(rung.accuracy),
        std: deviation(rung.accuracy),
        seconds: mean(rung.seconds),
        gain: d.length ? mean(d) : null,
        half: d.length > 1 ? (t[d.length - 1] * deviation(d)) / Math.sqrt(d.length) : null,
      }
    })

  function deviation(values) {
    const m = mean(values)
    return Math.sqrt(sum(values.map(v => (v - m) ** 2)) / (values.length - 1))
  }

  // ---- Python's random.Random, for whole numbers below 2**32 as the seed: the same seed asks the same questions

  class Random {
    constructor(seed) {
      const state = (this.state = new Uint32Array(624))
      const mixed = i => state[i - 1] ^ (state[i - 1] >>> 30)
      state[0] = 19650218
      for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, mixed(i)) + i
      let i = 1
      const next = () => {
        if (++i === 624) {
          state[0] = state[623]
          i = 1
        }
      }
      for (let k = 0; k < 624; k++) {
        state[i] = (state[i] ^ Math.imul(mixed(i), 1664525)) + seed
        next()
      }
      for (let k = 0; k < 623; k++) {
        state[i] = (state[i] ^ Math.imul(mixed(i), 1566083941)) - i
        next()
      }
      state[0] = 0x80000000
      this.at = 624
    }
    bits(k) {
      // getrandbits, k from 1 to 32
      const s = this.state
      if (this.at === 624) {
        for (let i = 0; i < 624; i++) {
          const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff)
          s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0)
        }
        this.at = 0
      }
      let y = s[this.at++]
      y ^= y >>> 11
      y ^= (y << 7) & 0x9d2c5680
      y ^= (y << 15) & 0xefc60000
      y ^= y >>> 18
      return y >>> (32 - k)
    }
    below(n) {
      // randrange
      const k = 32 - Math.clz32(n)
      let r = this.bits(k)
      while (r >= n) r = this.bits(k)
      return r
    }
    randint(a, b) {
      return a + this.below(b - a + 1)
    }
    choice(values) {
      return values[this.below(values.length)]
    }
    shuffled(values) {
      // sample, of all of at most 21 values
      const pool = [...values]
      return values.map((_, i) => {
        const j = this.below(pool.length - i),
          found = pool[j]
        pool[j] = pool[pool.length - i - 1]
        return found
      })
    }
  }

  // ---- questionnaire.py

  class BadInput extends Error {}

  // f'{v:.{digits}f}', which rounds a tie to the even digit
  function fixed(v, digits) {
    const exact = v.toFixed(100),
      cut = exact.indexOf('.') + 1 + digits,
      kept = exact.slice(0, cut)
    return /^50*$/.test(exact.slice(cut)) && '02468'.includes(kept.at(-1)) ? kept : v.toFixed(digits)
  }
  const thousands = text => text.replace(/^(-?\d+)/, whole => whole.replace(/\B(?=(\d{3})+$)/g, ','))
  const show = values =>
    // _show
    values.map(v => thousands(fixed(v, 4)).replace(/0+$/, '').replace(/\.$/, '')).join(', ')

  function smoothedQuestion(rng) {
    const n = rng.randint(3, 10),
      eps = rng.choice([0.1, 0.2, 0.3]),
      i = rng.below(n),
      off = eps / n
    const answer = Array.from({length: n}, (_, k) => (k === i ? 1 - eps + off : off))
    return {
      answer,
      tol: 0.005,
      text:
        `Label smoothing with eps=${eps} and ${n} classes: what is the target of class index ${i}? ` +
        `${n} numbers, to two decimals.`,
      why:
        `Each class gets eps/N = ${eps}/${n} = ${show([off])}, and index ${i}, place ${i + 1}, has 1 - eps on top: ` +
        `${show([answer[i]])}. They add up to 1.`,
    }
  }

  function mixedQuestion(rng) {
    const n = rng.randint(3, 8),
      lam = rng.choice([...Array(20).keys()].filter(k => k && k !== 10)) / 20
    const a = rng.below(n),
      b = rng.below(n)
    return {
      answer: mixedTarget(a, b, lam, n),
      tol: 0.005,
      text:
        `Mixup with lam=${lam}: lam times an image of class index ${a} plus (1 - lam) times one of class index ` +
        `${b}. What is the target, with ${n} classes? ${n} numbers, to two decimals.`,
      why:
        a !== b
          ? `Index ${a} gets lam = ${lam} and index ${b} gets 1 - lam = ${show([1 - lam])}, all others 0.`
          : 'Both images are of one class: its shares add up to 1, and the target is one-hot as without mixup.',
    }
  }

  function ttaQuestion(rng) {
    const seconds = rng.randint(2, 60),
      n = rng.randint(1, 9),
      total = seconds * (n + 1)
    return {
      answer: [total],
      tol: 0.5,
      text:
        `A network predicts the validation set in ${seconds} seconds. How many seconds does fastai take with ` +
        `learn.tta(n=${n}), if only the passes through the network count?`,
      why: `Augmented views: ${n}, and the plain one, make ${n + 1} passes: ${n + 1} x ${seconds} = ${total}.`,
    }
  }

  function epochsQuestion(rng) {
    const small = rng.randint(1, 9),
      large = rng.randint(1, 9),
      total = small + 1 + large
    return {
      answer: [total],
      tol: 0.1,
      text:
        `Progressive resizing: learn.fit_one_cycle(${small}) on small images, then learn.fine_tune(${large}) ` +
        'on large ones. How many epochs are trained in all?',
      why:
        'fine_tune trains one more epoch before its own, frozen where there are groups to freeze: ' +
        `${small} + 1 + ${large} = ${total}.`,
    }
  }

  function pixelsQuestion(rng) {
    const e1 = rng.randint(2, 6),
      e2 = rng.randint(1, 4)
    const s1 = rng.choice([64, 96]),
      s2 = rng.choice([128, 160, 192]),
      total = e1 * s1 ** 2 + e2 * s2 ** 2
    return {
      answer: [total],
      tol: 0.01 * total,
      text:
        `${e1} epochs at ${s1} px and then ${e2} at ${s2} px, square images: how many pixels of each image ` +
        'does the network see in all (rows times columns, colours not counted)? To within 1%.',
      why:
        `${e1} x ${s1}² + ${e2} x ${s2}² = ${thousands(`${total}`)}. ` +
        `As much as ${fixed(total / s2 ** 2, 1)} epochs at ${s2} px: ` +
        `what a plain training should get to be compared with it.`,
    }
  }

  const KINDS = [smoothedQuestion, mixedQuestion, ttaQuestion, epochsQuestion, pixelsQuestion]

  // the questions of quiz(seed=seed), one after the other, without end
  function* questions(seed) {
    const rng = new Random(seed)
    for (;;) for (const kind of rng.shuffled(KINDS)) yield kind(rng)
  }

  const NUMBER = '[-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:e[-+]?\\d+)?'
  const WORD = new RegExp(`^(${NUMBER})(?:/(${NUMBER}))?(%?)$`)

  function value(word) {
    // _value
    const [, a, b, percent] = word.match(WORD) ?? []
    if (a === undefined || (b && Number(b) === 0)) return null
    const v = Number(a) / Number(b ?? 1) / (percent ? 100 : 1)
    return Number.isFinite(v) ? v : null
  }

  // a string as Python's repr shows it
  function quoted(text) {
    const mark = text.includes("'") && !text.includes('"') ? '"' : "'"
    return mark + text.replaceAll('\\', '\\\\').replaceAll(mark, `\\${mark}`) + mark
  }

  // parse_numbers: the n numbers of a reply; throws BadInput, with one line that says what is expected
  function parseNumbers(text, n) {
    const s = text
      .toLowerCase()
      .replace(/(?<![\d.])[1-9]\d{0,2}(?:,\d{3})+(?!\d)/g, m => m.replaceAll(',', ''))
      .replace(/\s+%/g, '%')
      .replace(/\s*\/\s*/g, '/')
      .replace(/(?<=[\d.])\s*(s|sec|seconds?|px|pixels?|epochs?)\s*$/, '')
    const words = s
        .replace(/tensor|[\][(){},;]/g, ' ')
        .split(/\s+/)
        .filter(Boolean),
      values = words.map(value)
    if (values.length === n && !values.includes(null)) return values
    const wrong = words[values.indexOf(null)]
    const found =
      wrong === undefined
        ? `${values.length} found`
        : `${quoted(Array.from(wrong).slice(0, 20).join(''))} is not a number`
    throw new BadInput(
      `${n} ${n === 1 ? 'number is' : 'numbers are'} expected, such as 0.25, 1/4, 25% or 3.5e6; ${found}`,
    )
  }

  // is_right
  const isRight = (question, values) =>
    values.length === question.answer.length &&
    values.every((v, k) => Math.abs(v - question.answer[k]) <= question.tol + 1e-9)

  return {
    blend,
    mixedTarget,
    smoothTarget,
    logitGap,
    confidence,
    smoothLoss,
    smoothSlope,
    combineViews,
    largest,
    ladder,
    Random,
    BadInput,
    KINDS,
    questions,
    fixed,
    show,
    parseNumbers,
    isRight,
  }
})()
if (typeof module === 'object') module.exports = globalThis.courseNumbers
