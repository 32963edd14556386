// The pictures of a report: shown by subset and error, in the order asked for.
(() => {
  const gallery = document.getElementById("gallery");
  if (!gallery) return;
  const [subset, error, order] = ["subset", "error", "order"].map((name) => document.getElementById(`gallery-${name}`));
  const cards = [...gallery.children];
  const update = () => {
    const sign = Number(order.value); // ranks run from the worst; people without an error come last
    const place = (card) => ("rank" in card.dataset ? sign * card.dataset.rank : Infinity);
    gallery.replaceChildren(...cards.sort((a, b) => (place(a) === place(b) ? 0 : place(a) - place(b))));
    cards.forEach((card) => {
      card.hidden = (subset.value && card.dataset.subset !== subset.value) || (error.value && card.dataset.band !== error.value);
    });
    document.getElementById("gallery-count").textContent = `${cards.filter((card) => !card.hidden).length} of ${cards.length} pictures.`;
  };
  [subset, error, order].forEach((control) => control.addEventListener("change", update));
  update();
})();
