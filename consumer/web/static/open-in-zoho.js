// <open-in-zoho phone="+49…"><a href="…/open-in-zoho?phone=…&exp=…&sig=…">Open in Zoho</a></open-in-zoho>
// Shows beside the link whether the dialog is in Zoho.  The link works without this file.  See docs/open-in-zoho.md.
"use strict";
(() => {
  const script = document.currentScript || document.querySelector('script[src*="/static/open-in-zoho.js"]');
  const home = script && script.src ? new URL("..", script.src) : new URL("/", location.href);
  const texts = {
    en: { open: "Open in Zoho", linked: "in Zoho", pending: "on its way", failed: "not in Zoho: failed",
          unknown: "not in Zoho yet" },
    ru: { open: "Открыть в Zoho", linked: "в Zoho", pending: "в пути", failed: "не в Zoho: ошибка",
          unknown: "ещё не в Zoho" },
  };
  const style = `:host { display: inline-flex; flex-wrap: wrap; gap: .25em .5em; align-items: baseline }
    span { font-size: .85em; padding: 0 .5em; border: 1px solid currentColor; border-radius: 1em; opacity: .85 }
    span:empty { display: none }
    :host([state="linked"]) span { color: light-dark(#116329, #7ee2a0) }
    :host([state="pending"]) span { color: light-dark(#7a4b00, #f0cc6a) }
    :host([state="failed"]) span { color: light-dark(#a40e26, #ff9d94) }`;
  const waits = [2, 3, 5, 8, 13, 20, 30, 30, 30, 30];

  class OpenInZoho extends HTMLElement {
    static observedAttributes = ["phone", "dialog", "exp", "sig"];

    connectedCallback() {
      if (!this.shadowRoot) this.build();
      this.tries = 0;
      this.watch();
    }

    disconnectedCallback() {
      clearTimeout(this.timer);
      if (this.watcher) this.watcher.disconnect();
    }

    attributeChangedCallback(_name, before, after) {
      if (!this.shadowRoot || before === after) return;
      if (this.ownLink) this.ownLink.href = this.address("open-in-zoho", this.ownQuery());
      this.tries = 0;
      this.look();
    }

    build() {
      const root = this.attachShadow({ mode: "open" });
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(style);
      root.adoptedStyleSheets = [sheet];
      this.badge = document.createElement("span");
      this.badge.setAttribute("role", "status");
      root.append(document.createElement("slot"), this.badge);
      if (this.querySelector("a[href]")) return;
      this.ownLink = document.createElement("a");
      this.ownLink.href = this.address("open-in-zoho", this.ownQuery());
      this.ownLink.target = "_blank";
      this.ownLink.rel = "noopener noreferrer";
      this.ownLink.textContent = this.words.open;
      this.append(this.ownLink);
    }

    get words() {
      const around = this.closest("[lang]");
      return (around && around.lang.toLowerCase().startsWith("ru")) ? texts.ru : texts.en;
    }

    ownQuery() {
      const names = OpenInZoho.observedAttributes.filter((name) => this.getAttribute(name));
      return new URLSearchParams(names.map((name) => [name, this.getAttribute(name)]));
    }

    // What the link beside us asks for is what we ask for, so a signature stands in the page once.
    query() {
      const link = this.querySelector("a[href]");
      return link && link !== this.ownLink ? new URL(link.href).searchParams : this.ownQuery();
    }

    address(path, query) {
      const url = new URL(path, home);
      url.search = query.toString();
      return url.href;
    }

    // Only links that are on the screen ask: a list of a thousand chats must not.
    watch() {
      if (!window.IntersectionObserver) return void this.look();
      this.watcher = new IntersectionObserver((entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        this.watcher.disconnect();
        this.look();
      });
      this.watcher.observe(this);
    }

    async look() {
      clearTimeout(this.timer);
      const turn = this.turn = {};
      let answer = null;
      try {
        const reply = await fetch(this.address("api/v1/dialog-link", this.query()), { referrerPolicy: "no-referrer" });
        if (reply.ok) answer = await reply.json();
      } catch { /* the link still works */ }
      if (turn !== this.turn) return;
      this.show(answer);
      if ((!answer || answer.state === "pending" || answer.state === "unknown") && this.tries < waits.length)
        this.timer = setTimeout(() => this.look(), waits[this.tries++] * 1000);
    }

    show(answer) {
      const state = answer && this.words[answer.state] ? answer.state : "";
      if (state) this.setAttribute("state", state); else this.removeAttribute("state");
      this.badge.textContent = state ? this.words[state] : "";
      this.dispatchEvent(new CustomEvent("zoho-state", { bubbles: true, detail: answer }));
    }
  }

  if (!customElements.get("open-in-zoho")) customElements.define("open-in-zoho", OpenInZoho);
})();
