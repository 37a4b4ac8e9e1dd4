// The loss over the gap between the right logit and the others, with smoothed and with hard targets.
{
  const {begin, h, s, title, slider, drawing, axes, path, said, signed} = window.courseWidgets // ui.js comes before
  const build = data => {
    const {n, most, widest} = data,
      {smoothTarget, logitGap, confidence, smoothLoss, smoothSlope} = courseNumbers
    let {eps, gap} = data
    const words = said()
    const facts = Object.fromEntries(
      [
        ['loss', 'loss here'],
        ['slope', 'gradient of the right logit'],
        ['p', 'confidence p'],
        ['q', 'target q'],
        ['wall', 'wall'],
        ['least', 'lowest loss'],
      ].map(([k, name]) => [k, {name, node: h('dd')}]),
    )
    const table = h(
      'dl',
      {class: 'w-facts'},
      ...Object.values(facts).map(o => h('div', {}, h('dt', {}, o.name), o.node)),
    )

    const plot = drawing(
      (width, height) => {
        const a = axes({
          width,
          height,
          xs: [0, widest],
          ys: [0, 3],
          xticks: [0, 2, 4, 6, 8, 10],
          yticks: [0, 1, 2, 3],
          xlabel: 'gap: the right logit minus the others',
          ylabel: 'loss',
        })
        const gaps = Array.from({length: 201}, (_, i) => (i * widest) / 200),
          curve = e => gaps.map(g => [a.x(g), a.y(smoothLoss(g, e, n))])
        const wall = logitGap(eps, n),
          slope = smoothSlope(gap, eps, n),
          loss = smoothLoss(gap, eps, n)
        const tangent = [-1.4, 1.4].map(d => [a.x(gap + d), a.y(loss + d * slope)])
        const x = a.x(gap),
          y = a.y(loss) - 24,
          way = -Math.sign(slope),
          tip = x + way * (16 + 60 * Math.abs(slope)) // where descent goes
        const late = wall > 0.62 * widest // its label stands on the left
        return [
          a.g,
          path(curve(0), {class: 'w-line w-second', 'stroke-dasharray': '6 4'}),
          ...(eps
            ? [
                s('line', {class: 'w-wall', x1: a.x(wall), x2: a.x(wall), y1: a.top, y2: a.bottom}),
                s(
                  'text',
                  {x: a.x(wall) + (late ? -7 : 7), y: a.top + 14, 'text-anchor': late ? 'end' : 'start'},
                  `wall ${wall.toFixed(2)}`,
                ),
                path(curve(eps), {class: 'w-line w-first'}),
                s('circle', {class: 'w-ring', cx: a.x(wall), cy: a.y(smoothLoss(wall, eps, n)), r: 5}),
              ]
            : []),
          path(tangent, {class: 'w-tangent'}),
          ...(Math.abs(slope) < 0.0005
            ? []
            : [
                path(
                  [
                    [x, y],
                    [tip, y],
                  ],
                  {class: 'w-tangent'},
                ),
                path(
                  [
                    [tip - way * 7, y - 5],
                    [tip, y],
                    [tip - way * 7, y + 5],
                  ],
                  {class: 'w-tangent'},
                ),
              ]),
          s('circle', {class: eps ? 'w-dot w-first' : 'w-dot w-second', cx: a.x(gap), cy: a.y(loss), r: 7}),
        ]
      },
      w => (w < 480 ? 260 : 320),
    )

    function update() {
      const wall = logitGap(eps, n),
        loss = smoothLoss(gap, eps, n),
        slope = smoothSlope(gap, eps, n)
      const text = {
        loss: loss.toFixed(3),
        slope: signed(slope, 3),
        p: confidence(gap, n).toFixed(4),
        q: smoothTarget(eps, n).right.toFixed(3),
        wall: eps ? `ln ${Math.exp(wall).toFixed(1).replace('.0', '')} = ${wall.toFixed(2)}` : 'none',
        least: eps ? smoothLoss(wall, eps, n).toFixed(3) : '0, never reached',
      }
      for (const [k, o] of Object.entries(facts)) o.node.textContent = text[k]
      const where =
        slope < -0.0005
          ? 'The gradient is negative: a step of descent widens the gap.'
          : slope > 0.0005
            ? 'The gradient is positive: beyond the wall, a step of descent narrows the gap.'
            : eps
              ? 'The gradient is almost 0: this is the wall.'
              : 'The gradient is almost 0, yet a wider gap still lowers the loss.'
      const at = `Gap ${gap.toFixed(1)}, ε ${eps.toFixed(2)}`
      words.textContent = `${at}: loss ${text.loss}, gradient ${text.slope}. ${where}`
      plot.svg.setAttribute('aria-label', `Loss over the gap. ${words.textContent}`)
      plot.redraw()
    }

    const one = slider({
      label: 'ε, the share that is spread over all classes',
      min: 0,
      max: most,
      step: 0.01,
      value: eps,
      say: v => v.toFixed(2),
      oninput: v => {
        eps = v
        update()
      },
    })
    const two = slider({
      label: 'gap, the right logit minus the others',
      min: 0,
      max: widest,
      step: 0.1,
      value: gap,
      say: v => v.toFixed(1),
      oninput: v => {
        gap = v
        update()
      },
    })
    update()
    return [
      title(
        'How far ahead should the right logit be?',
        'Move the gap over the wall, and watch the sign of the gradient.',
      ),
      h(
        'div',
        {class: 'w-columns w-wide-left'},
        h(
          'div',
          {},
          plot.svg,
          h(
            'p',
            {class: 'w-key'},
            h('span', {class: 'w-first'}, 'smoothed target'),
            h('span', {class: 'w-second'}, 'hard target'),
          ),
          words,
        ),
        h(
          'div',
          {},
          one.node,
          two.node,
          table,
          h(
            'p',
            {class: 'w-hint'},
            'The arrow points where a step of gradient descent moves the gap. The ring is the lowest loss.',
          ),
        ),
      ),
    ]
  }
  build.label = 'The wall of label smoothing'
  begin('smoothing', build)
}
