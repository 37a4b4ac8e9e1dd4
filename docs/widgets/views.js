// What a network said to the middle square and to four random views, and what their mean or maximum says.
{
  const {begin, h, s, title, bars, said} = window.courseWidgets // ui.js comes before
  const build = data => {
    const {classes, index, label, beta, whole} = data,
      {combineViews, largest} = courseNumbers
    const [plain, ...rest] = data.views,
      on = rest.map(() => false),
      percent = v => `${(100 * v).toFixed(1)}%`
    let reduce = 'mean'
    const scores = bars(classes, 'The combined prediction'),
      words = said(),
      weights = []
    const name = k => `view ${k + 1}`

    function update() {
      const used = rest.filter((_, k) => on[k]),
        values = combineViews(
          plain.probs,
          used.map(o => o.probs),
          beta,
          reduce,
        )
      const answer = largest(values),
        right = answer === index,
        each = (1 - beta) / used.length
      scores.set(
        values,
        values.map(percent),
        classes.map((_, k) => (k === index ? 'w-first' : k === answer ? 'w-second' : 'w-none')),
      )
      scores.rows.forEach((row, k) => {
        row.track.replaceChildren(
          row.fillBar,
          ...[plain, ...used].map(o => h('i', {class: 'w-tick', style: `left: ${100 * o.probs[k]}%`})),
        )
      })
      weights.forEach((node, k) => {
        const counts = k ? on[k - 1] : true
        node.textContent = !counts
          ? 'off'
          : reduce === 'max' && used.length
            ? 'in'
            : `weight ${percent(!used.length ? 1 : k ? each : beta)}`
      })
      const what = !used.length
        ? 'The middle square alone'
        : `${reduce === 'mean' ? 'The mean' : 'The maximum'} of the middle square and ` +
          `${used.length} ${used.length === 1 ? 'view' : 'views'}`
      words.className = `w-said ${right ? 'w-right' : 'w-wrong'}`
      words.textContent =
        `${what}: ${classes[answer]}, ${percent(values[answer])}. ` +
        (right ? 'Right.' : `Wrong: it is a ${label}, which has ${percent(values[index])}.`) +
        (reduce === 'max' && used.length
          ? ` These are scores: they add up to ${values.reduce((a, b) => a + b).toFixed(2)}.`
          : '')
    }

    const card = (o, k) => {
      const weight = h('span', {class: 'w-hint'}),
        top = largest(o.probs)
      weights.push(weight)
      const text = [
        h('b', {}, k ? name(k - 1) : 'middle square'),
        h('span', {}, `${label} ${percent(o.probs[index])}`),
        h('span', {class: top === index ? 'w-right' : 'w-wrong'}, `says ${classes[top]}`),
        weight,
      ]
      const image = h('img', {src: o.png, alt: '', class: 'dark-light'})
      return k
        ? h(
            'label',
            {class: 'w-card'},
            h('input', {
              type: 'checkbox',
              onchange: e => {
                on[k - 1] = e.target.checked
                update()
              },
            }),
            image,
            ...text,
          )
        : h('div', {class: 'w-card'}, image, ...text)
    }
    const radio = (value, text) =>
      h(
        'label',
        {class: 'w-radio'},
        h('input', {
          type: 'radio',
          name: 'w-reduce',
          value,
          checked: value === reduce,
          onchange: () => {
            reduce = value
            update()
          },
        }),
        text,
      )
    const [x, y, side] = whole.square
    const drawing = h(
      'div',
      {class: 'w-whole'},
      s(
        'svg',
        {
          viewBox: `0 0 ${whole.width} ${whole.height}`,
          role: 'img',
          'aria-label': `the whole drawing, a ${label}, with its middle square marked`,
        },
        s('image', {href: whole.png, width: whole.width, height: whole.height}),
        s('rect', {class: 'w-square', x: x + 1.5, y: y + 1.5, width: side - 3, height: side - 3}),
      ),
      h('span', {class: 'w-hint'}, `the drawing: a ${label}`),
    )
    const all = h(
      'details',
      {},
      h('summary', {}, 'All probabilities'),
      h(
        'div',
        {class: 'w-scroll', tabindex: '0'},
        h(
          'table',
          {},
          h(
            'thead',
            {},
            h(
              'tr',
              {},
              h('th', {scope: 'col'}, 'class'),
              ...data.views.map((_, k) => h('th', {scope: 'col'}, k ? name(k - 1) : 'middle')),
            ),
          ),
          h(
            'tbody',
            {},
            ...classes.map((c, k) =>
              h('tr', {}, h('th', {scope: 'row'}, c), ...data.views.map(o => h('td', {}, percent(o.probs[k])))),
            ),
          ),
        ),
      ),
    )
    const cards = h(
      'fieldset',
      {class: 'w-cards'},
      h('legend', {}, 'Which views count?'),
      drawing,
      ...data.views.map(card),
    )
    const rule = h(
      'fieldset',
      {class: 'w-rule'},
      h('legend', {}, 'How are they combined?'),
      radio('mean', 'mean of probabilities'),
      radio('max', 'maximum'),
    )
    update()
    return [
      title('Look again.', 'Switch views on. Which ones help, and which rule trusts whom?'),
      cards,
      h(
        'div',
        {class: 'w-columns'},
        h('div', {}, rule, words),
        h('div', {}, scores.node, h('p', {class: 'w-hint'}, 'Bars: combined. Small lines: the single views.')),
      ),
      all,
      h(
        'p',
        {class: 'w-hint'},
        `What one network said: ${data.network}. ` +
          'This drawing was chosen because its views rescue it; others they lose.',
      ),
    ]
  }
  build.label = 'Several views of one drawing'
  begin('views', build)
}
