// The pictures of a report: shown by subset and error, in the order asked for.
(() => {
  const gallery = document.getElementById("gallery");
  if (!gallery) return;
  const [subset, error, order] = ["subset", "error", "order"].map((name) => document.getElementById(`gallery-${name}`));
  const cards = [...gallery.children];
  const update = () => {
    const sign = Number(order.value);
    gallery.replaceChildren(...cards.sort((a, b) => sign * (a.dataset.rank - b.dataset.rank)));
    cards.forEach((card) => {
      card.hidden = (subset.value && card.dataset.subset !== subset.value) || (error.value && card.dataset.band !== error.value);
    });
    document.getElementById("gallery-count").textContent = `${cards.filter((card) => !card.hidden).length} of ${cards.length} pictures.`;
  };
  [subset, error, order].forEach((control) => control.addEventListener("change", update));
  update();
})();
