// Blends a church and a gas pump, and their targets, with one share.
{
  const {begin, h, title, slider, bars, said} = window.courseWidgets // ui.js comes before
  const build = ({classes, share, first, second}) => {
    const {blend, mixedTarget} = courseNumbers
    const canvas = h('canvas', {width: 160, height: 160, role: 'img'})
    const target = bars(classes, 'The blended target'),
      words = said()
    const source = o =>
      h(
        'div',
        {class: 'w-source'},
        h('img', {src: o.png, alt: `a drawn ${o.name}`, class: 'dark-light'}),
        h('span', {}, o.name),
      )
    let pixels // of both pictures, 0..255, when they are decoded

    function update(lam) {
      const values = mixedTarget(first.index, second.index, lam, classes.length)
      target.set(
        values,
        values.map(v => v.toFixed(2)),
        classes.map((_, k) => (k === first.index ? 'w-first' : k === second.index ? 'w-second' : 'w-none')),
      )
      const sum = `${lam.toFixed(2)} · ${first.name} + ${(1 - lam).toFixed(2)} · ${second.name}`
      canvas.setAttribute('aria-label', `the blend: ${sum}`)
      words.textContent = `Image and target: ${sum}`
      if (!pixels) return
      const context = canvas.getContext('2d'),
        image = context.createImageData(canvas.width, canvas.height)
      image.data.set(blend(...pixels, lam))
      context.putImageData(image, 0, 0)
    }

    async function decode(o) {
      const image = Object.assign(new Image(), {src: o.png})
      await image.decode()
      const page = h('canvas', {width: canvas.width, height: canvas.height}).getContext('2d', {
        willReadFrequently: true,
      })
      page.drawImage(image, 0, 0)
      return page.getImageData(0, 0, canvas.width, canvas.height).data
    }

    const lam = slider({
      label: `λ, the share of the ${first.name}`,
      min: 0,
      max: 1,
      step: 0.01,
      value: share,
      say: v => v.toFixed(2),
      oninput: update,
      kind: 'w-blend',
    })
    update(share)
    Promise.all([decode(first), decode(second)]).then(o => {
      pixels = o
      update(+lam.input.value)
    })
    return [
      title(
        'Blend two pictures, and their labels.',
        'Where is it a church, where a gas pump, and what does the target say there?',
      ),
      h(
        'div',
        {class: 'w-columns'},
        h(
          'div',
          {},
          h('div', {class: 'w-pictures'}, source(second), h('div', {class: 'w-mix'}, canvas), source(first)),
          lam.node,
          words,
        ),
        target.node,
      ),
    ]
  }
  build.label = 'Mixup by hand'
  begin('mixup', build)
}
