"""The style sheets of the views; class names begin with "cx-", so that they meet no others on the page."""

PAGE = """
.cx{font:14px/1.45 system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;color:#1d2430;background:#fff;
padding:2px}
.cx p{margin:.3em 0}
.cx .cx-untrusted{display:none}
.cx .cx-head{font-weight:600;margin:.7em 0 .25em}
.cx .cx-note{max-width:56em}
.cx .cx-row{display:flex;flex-wrap:wrap;gap:8px 6px;align-items:flex-start}
.cx .cx-trio{display:flex;gap:4px;margin-right:22px}
.cx figure{margin:0;width:78px;text-align:center;font-size:12px;line-height:1.3}
.cx figure img{width:72px;height:72px;max-width:none;margin:0;padding:0;box-sizing:content-box;
object-fit:contain;image-rendering:pixelated;border:3px solid #bbb;border-radius:4px;background:#fff}
.cx figure.cx-right img{border-color:#332288}
.cx figure.cx-wrong img{border:3px dashed #CC6677}
.cx .cx-dot{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:3px;
print-color-adjust:exact}
.cx .cx-charts{display:flex;flex-wrap:wrap;gap:4px 14px}
.cx .cx-chart{max-width:100%}
.cx .cx-chart p{font-size:13px;font-weight:600;margin:.3em 0 .1em}
.cx .cx-chart svg{display:block;width:100%;height:auto;max-width:none}
.cx .cx-legend .cx-key{display:inline-block;margin-right:1.2em}
.cx table{border-collapse:collapse;margin:.5em 0;font-size:13px;color:inherit}
.cx td,.cx th{padding:.25em .7em;text-align:right;white-space:normal;border:0;border-bottom:1px solid #d9dee6}
.cx td:first-child,.cx th:first-child{text-align:left}
"""

# A mark opens its image (::before) and its words (::after) to the right and below; l: left, u: above. Of a
# star only the name takes the pointer, so that the dots behind it can be reached.
MAP = """
.cx .cx-plane{--w:96px;position:relative;width:100%;max-width:840px;aspect-ratio:10/7;
border:1px solid #d9dee6;border-radius:4px;background:#fff}
.cx .cx-plane>svg{position:absolute;inset:0;width:100%;height:100%;max-width:none}
.cx-plane i{position:absolute;width:9px;height:9px;margin:-4.5px 0 0 -4.5px;border-radius:50%;
border:1px solid #fff;box-sizing:border-box;outline:none;cursor:pointer;font-style:normal;
print-color-adjust:exact}
.cx-plane i.h{background:#fff!important;border-width:2px}
.cx-plane i.s{width:20px;height:20px;margin:-10px 0 0 -10px;border:0;border-radius:4px;z-index:2;
pointer-events:none}
.cx-plane i:hover,.cx-plane i:focus{z-index:5;box-shadow:0 0 0 2px #222}
.cx-plane i:hover{z-index:6}
.cx .cx-plane i.s svg{display:block;width:20px;height:20px;max-width:none}
.cx-plane i b{position:absolute;left:17px;top:-8px;font:600 11px/1.2 system-ui,sans-serif;color:#222;
white-space:nowrap;pointer-events:auto;text-shadow:0 0 2px #fff,0 0 2px #fff,0 0 2px #fff}
.cx-plane i:hover::before,.cx-plane i:focus::before{content:"";position:absolute;left:14px;top:14px;
width:var(--w);height:var(--w);image-rendering:pixelated;background-repeat:no-repeat;
background-size:calc(var(--columns)*var(--w)) calc(var(--rows)*var(--w));
background-position:calc(var(--x)*-1*var(--w)) calc(var(--y)*-1*var(--w));border:1px solid #222;
background-clip:padding-box;background-origin:padding-box;pointer-events:none}
.cx-plane i:hover::after,.cx-plane i:focus::after{content:attr(data-t);position:absolute;left:14px;
top:calc(var(--w) + 15px);width:164px;padding:3px 6px;box-sizing:border-box;background:#fff;
border:1px solid #222;color:#222;white-space:pre-line;font:12px/1.3 system-ui,sans-serif;
text-align:left;pointer-events:none}
.cx-plane i.l b{left:auto;right:17px}
.cx-plane i.l:hover::before,.cx-plane i.l:focus::before{left:auto;right:14px}
.cx-plane i.l:hover::after,.cx-plane i.l:focus::after{left:auto;right:14px}
.cx-plane i.u:hover::before,.cx-plane i.u:focus::before{top:auto;bottom:14px}
.cx-plane i.u:hover::after,.cx-plane i.u:focus::after{top:auto;bottom:calc(var(--w) + 15px)}
@media (max-width:600px){.cx .cx-plane{--w:60px}.cx .cx-plane i::after{width:146px!important}
.cx-plane i:not(.s){width:7px;height:7px;margin:-3.5px 0 0 -3.5px}}
.cx .cx-legend svg{display:inline-block;width:14px;height:14px;vertical-align:-2px;max-width:none}
"""
