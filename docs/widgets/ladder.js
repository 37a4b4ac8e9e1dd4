// The sprint: accuracy against seconds, one rung after the other.
{
  const {begin, h, s, title, slider, drawing, axes, path, said, signed} = window.courseWidgets // ui.js comes before
  const build = data => {
    const found = courseNumbers.ladder(data.rungs, data.t),
      last = data.rungs.length
    const stops = data.rungs.map((o, i) => ({...o, ...found[i], each: o.accuracy, rank: `${i + 1}`}))
    stops.push({
      ...data.beside,
      ...courseNumbers.ladder([data.beside], data.t)[0],
      each: data.beside.accuracy,
      rank: '+',
    })
    let now = 1 // how many are shown
    const words = said(),
      list = h('ol', {class: 'w-rungs', 'aria-label': 'The rungs so far'})
    const most = 50 * Math.ceil(Math.max(...stops.map(o => o.seconds)) / 50 + 1)
    const low = 2 * Math.floor(Math.min(...stops.map(o => o.accuracy)) / 2),
      high = 2 * Math.ceil(Math.max(...stops.map(o => o.accuracy)) / 2)

    const plot = drawing(
      (width, height) => {
        const a = axes({
          width,
          height,
          xs: [0, most],
          ys: [low, high],
          xticks: Array.from({length: (most / 200 + 1) | 0}, (_, i) => 200 * i),
          yticks: Array.from({length: (high - low) / 2 + 1}, (_, i) => low + 2 * i),
          xlabel: 'seconds of one core, training and validation',
          ylabel: 'accuracy (%)',
        })
        const wide = width >= 620,
          shown = stops.slice(0, now),
          at = o => [a.x(o.seconds), a.y(o.accuracy)]
        const lines = data.lines.flatMap(([v, name]) => [
          s('line', {class: 'w-mark', x1: a.left, x2: a.right, y1: a.y(v), y2: a.y(v)}),
          s(
            'text',
            {class: 'w-mark-name', x: a.right, y: a.y(v) + 14, 'text-anchor': 'end'},
            wide ? name : name.split(',')[0],
          ),
        ])
        const labelled = (wide ? shown : shown.slice(-1).filter(o => o.rank !== '+')).map(o => {
          const [x, y] = at(o),
            end = x > (wide ? 0.6 : 0.45) * width
          return {o, x, y, end, tx: end ? x - 12 : x + (wide ? 26 : 13), ty: y + (end ? -10 : 4)}
        })
        // names that stand below one another
        const column = labelled.filter(o => !o.end && o.o.rank !== '+').sort((p, q) => p.ty - q.ty)
        column.forEach((o, i) => {
          if (i) o.ty = Math.max(o.ty, column[i - 1].ty + 17)
        })
        for (const o of labelled) if (o.o.rank === '+') Object.assign(o, {end: true, tx: o.x + 42, ty: o.y + 24})
        const names = labelled.flatMap(({o, x, y, end, tx, ty}) => [
          ...(end || o.rank === '+' ? [] : [s('line', {class: 'w-leader', x1: x, y1: y, x2: tx - 3, y2: ty - 4})]),
          s(
            'text',
            {
              class: o === stops[now - 1] ? 'w-label w-now' : 'w-label',
              x: tx,
              y: ty,
              'text-anchor': end ? 'end' : 'start',
            },
            `${o.rank === '+' ? '' : `${o.rank} `}${o.name}`,
          ),
        ])
        const dots = shown.map((o, i) =>
          s('circle', {
            class: `w-dot ${o.rank === '+' ? 'w-third' : 'w-first'}${i === now - 1 ? ' w-now' : ''}`,
            cx: at(o)[0],
            cy: at(o)[1],
            r: i === now - 1 ? 8 : 5,
          }),
        )
        return [
          a.g,
          ...lines,
          path(shown.filter(o => o.rank !== '+').map(at), {class: 'w-line w-path'}),
          ...names,
          ...dots,
        ]
      },
      w => (w < 480 ? 300 : 400),
    )

    function update() {
      const o = stops[now - 1],
        n = `${o.n} seeds`,
        seconds = `${o.seconds.toFixed(0)} s`
      const gain =
        o.gain === null
          ? ''
          : `, ${signed(o.gain, 1)} ± ${o.half.toFixed(1)} points over the rung before` +
            (Math.abs(o.gain) < o.half ? ' (the interval contains zero)' : '')
      words.replaceChildren(
        h('b', {}, `${o.rank === '+' ? '' : `${o.rank} of ${last}: `}${o.name}. `),
        `${o.change} `,
        h('span', {class: 'w-result'}, `${o.accuracy.toFixed(1)}%, the mean of ${n}${gain}; ${seconds}.`),
      )
      list.replaceChildren(
        ...stops
          .slice(0, now)
          .map((p, i) =>
            h(
              'li',
              {class: i === now - 1 ? 'w-now' : ''},
              h('span', {class: 'w-rank', 'aria-hidden': p.rank === '+' ? 'true' : null}, p.rank),
              h('span', {class: 'w-name'}, p.name),
              h('span', {}, `${p.accuracy.toFixed(1)}%`),
              h('span', {class: 'w-hint'}, `n = ${p.n}`),
              h('span', {class: 'w-hint'}, `${p.seconds.toFixed(0)} s`),
            ),
          ),
      )
      back.disabled = now === 1
      next.disabled = now === stops.length
      plot.svg.setAttribute('aria-label', `Accuracy against seconds. ${words.textContent}`)
      plot.redraw()
    }
    const go = k => {
      now = k
      step.set(k)
      update()
    }
    const back = h('button', {type: 'button', onclick: () => go(now - 1)}, 'Back')
    const next = h('button', {type: 'button', class: 'w-main', onclick: () => go(now + 1)}, 'Next step')
    const step = slider({
      label: 'step',
      min: 1,
      max: stops.length,
      step: 1,
      value: now,
      oninput: go,
      say: k => (k > last ? 'beside the ladder' : `${k} of ${last}`),
    })
    update()
    return [
      title('Climb the sprint.', 'Before each step, guess: does it gain, and what does it cost?'),
      h('div', {class: 'w-controls'}, back, next, step.node),
      words,
      plot.svg,
      list,
      h('p', {class: 'w-hint'}, 'Points: the mean difference, seed by seed, with its 95% interval.'),
    ]
  }
  build.label = 'The ladder of the sprint'
  begin('ladder', build)
}
