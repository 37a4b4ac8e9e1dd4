// What the widgets share on a page: elements, a slider, bars, axes, and `begin`, which puts a widget into its figures.
;(() => {
  'use strict'
  const here = document.currentScript.src,
    data = {}
  globalThis.courseData = (name, value) => {
    data[name] = value
  } // called by NAME.data.js

  const load = file =>
    new Promise((done, fail) =>
      document.head.append(
        Object.assign(document.createElement('script'), {
          src: new URL(file, here),
          onload: done,
          onerror: () => fail(Error(`no ${file}`)),
        }),
      ),
    )
  const ready = new Promise(done =>
    document.readyState === 'loading' ? document.addEventListener('DOMContentLoaded', done) : done(),
  )
  const numbers = load('numbers.js')

  // replaces the still in each figure of this name by what `build(data)` gives; a caption stays
  async function begin(name, build, hasData = true) {
    await Promise.all([ready, numbers, hasData && load(`${name}.data.js`)])
    for (const figure of document.querySelectorAll(`figure[data-widget="${name}"]`)) {
      const caption = figure.querySelector('figcaption')
      figure.replaceChildren(
        h('div', {class: 'w-body', role: 'group', 'aria-label': build.label}, ...build(data[name])),
      )
      if (caption) figure.append(caption)
      figure.dataset.ready = 'yes'
    }
  }

  // an element; attributes that begin with `on` are listeners
  function fill(node, props, children) {
    for (const [k, v] of Object.entries(props ?? {})) {
      if (k.startsWith('on')) node.addEventListener(k.slice(2), v)
      else if (v === true) node.setAttribute(k, '')
      else if (v !== false && v != null) node.setAttribute(k, v)
    }
    node.append(...children)
    return node
  }
  const h = (tag, props, ...children) => fill(document.createElement(tag), props, children)
  const s = (tag, props, ...children) =>
    fill(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children)

  const title = (text, hint) =>
    h('p', {class: 'w-title'}, h('strong', {}, text), ' ', h('span', {class: 'w-hint'}, hint))

  let ids = 0
  // a labelled slider; `say` turns its value into words, `oninput` gets the value
  function slider({label, min, max, step, value, say, oninput, kind = ''}) {
    const id = `w-slider-${++ids}`,
      shown = h('span', {class: 'w-value', 'aria-hidden': 'true'})
    const input = h('input', {type: 'range', id, min, max, step, value, class: kind})
    const update = () => {
      shown.textContent = say(+input.value)
      input.setAttribute('aria-valuetext', shown.textContent)
    }
    input.addEventListener('input', () => {
      update()
      oninput(+input.value)
    })
    update()
    return {
      node: h('div', {class: 'w-slider'}, h('label', {for: id}, label), shown, input),
      input,
      set(v) {
        input.value = v
        update()
      },
    }
  }

  // horizontal bars with a name and a number each; `set(values, texts, kinds)`
  function bars(names, label) {
    const rows = names.map(name => {
      const fillBar = h('span', {class: 'w-fill'}),
        text = h('span', {class: 'w-number'})
      const track = h('span', {class: 'w-track', 'aria-hidden': 'true'}, fillBar)
      return {fillBar, text, track, node: h('li', {}, h('span', {class: 'w-name'}, name), track, text)}
    })
    return {
      node: h('ul', {class: 'w-bars', 'aria-label': label}, ...rows.map(o => o.node)),
      rows,
      set(values, texts, kinds) {
        rows.forEach((o, k) => {
          o.fillBar.style.width = `${100 * values[k]}%`
          o.text.textContent = texts[k]
          o.node.className = kinds[k]
        })
      },
    }
  }

  // an svg that is drawn anew in the pixels of its place: draw(width) gives its children, `height(width)` its height
  function drawing(draw, height) {
    const svg = s('svg', {class: 'w-plot', role: 'img'})
    const redraw = () => {
      const w = Math.floor(svg.getBoundingClientRect().width)
      if (!w) return
      const tall = height(w)
      svg.setAttribute('viewBox', `0 0 ${w} ${tall}`)
      svg.style.height = `${tall}px`
      svg.replaceChildren(...draw(w, tall))
    }
    new ResizeObserver(redraw).observe(svg)
    return {svg, redraw}
  }

  // axes with a grid; x(v) and y(v) turn values into pixels
  function axes({width, height, xs, ys, xticks, yticks, xlabel, ylabel}) {
    const left = 38,
      right = width - 10,
      top = 24,
      bottom = height - 42
    const x = v => left + ((v - xs[0]) / (xs[1] - xs[0])) * (right - left)
    const y = v => bottom - ((v - ys[0]) / (ys[1] - ys[0])) * (bottom - top)
    const g = s(
      'g',
      {class: 'w-axes', 'aria-hidden': 'true'},
      ...xticks.flatMap(v => [
        s('line', {x1: x(v), x2: x(v), y1: top, y2: bottom}),
        s('text', {x: x(v), y: bottom + 17, 'text-anchor': 'middle'}, `${v}`),
      ]),
      ...yticks.flatMap(v => [
        s('line', {x1: left, x2: right, y1: y(v), y2: y(v)}),
        s('text', {x: left - 7, y: y(v) + 4, 'text-anchor': 'end'}, `${v}`),
      ]),
      s('text', {x: (left + right) / 2, y: height - 6, 'text-anchor': 'middle'}, xlabel),
      s('text', {x: 2, y: 12}, ylabel),
    )
    return {g, x, y, left, right, top, bottom}
  }

  const path = (points, props) =>
    s('path', {
      fill: 'none',
      ...props,
      d: points.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join(''),
    })
  const said = () => h('output', {class: 'w-said', 'aria-live': 'polite'}) // what a screen reader hears of a change
  const signed = (v, digits) => `${v < 0 ? '−' : '+'}${Math.abs(v).toFixed(digits)}`

  globalThis.courseWidgets = {begin, h, s, title, slider, bars, drawing, axes, path, said, signed}
})()
