"use strict";
(() => {
  const { config, charts } = JSON.parse(document.getElementById("figures").textContent);
  const views = [];
  const shown = document.getElementById("shown");
  const pick = document.getElementById("pick");

  const hidden = () => [...shown.querySelectorAll("input:not(:checked)")].map((box) => box.value);

  for (const place of document.querySelectorAll(".chart")) place.style.minHeight = `${place.dataset.height}px`;

  // One chart after the other, and the page reacts in between.
  const drawAll = async () => {
    for (const [number, spec] of charts.entries()) {
      const place = document.getElementById(`chart-${number}`);
      const result = await vegaEmbed(place, spec, {
        config, ast: true, renderer: "svg", actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true },
      });
      result.view.signal("hidden", hidden());
      await result.view.runAsync();
      views.push(result.view);
      await new Promise((resume) => setTimeout(resume));
    }
    document.documentElement.dataset.drawn = String(views.length);
  };

  shown.addEventListener("change", () => {
    for (const view of views) view.signal("hidden", hidden()).runAsync();
  });

  const listed = () => [...document.querySelectorAll(".sample:not([hidden])")];

  const list = () => {
    const wanted = Object.fromEntries(new FormData(pick));
    for (const sample of document.querySelectorAll(".sample")) {
      sample.hidden = Object.entries(wanted).some(([name, value]) => value && sample.dataset[name] !== value);
    }
    document.getElementById("listed").textContent = `${listed().length} samples`;
  };

  // A link to a sample opens it, whatever the filters say.
  const arrive = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target?.classList.contains("sample")) return;
    if (target.hidden) {
      for (const select of pick.querySelectorAll("select")) select.value = "";
      list();
    }
    target.open = true;
    target.scrollIntoView({ block: "start" });
    target.querySelector("summary").focus({ preventScroll: true });
  };

  if (pick) {
    list();
    pick.addEventListener("change", list);
    pick.addEventListener("submit", (event) => event.preventDefault());
    document.getElementById("unfold").addEventListener("click", () => {
      const samples = listed();
      const open = samples.some((sample) => !sample.open);
      for (const sample of samples) sample.open = open;
    });
  }
  window.addEventListener("hashchange", arrive);
  drawAll().then(arrive);
})();
