package page

import (
	"fmt"
	"html/template"
	"math"
	"strings"
)

// The drawing area of a chart, in its own units, within margins for the axes' numbers.
const (
	chartWidth, chartHeight = 420.0, 220.0
	left, right, above, low = 52.0, 10.0, 10.0, 26.0
)

// series are points that are drawn in one style, as a line or as dots.
type series struct {
	class string // of the style sheet
	x, y  []float64
	dots  bool
}

// axis maps numbers to places, from 0 or below to the largest.
type axis struct{ from, to, begin, end float64 }

func (a axis) at(v float64) float64 {
	if a.to == a.from {
		return a.begin
	}
	return a.begin + (v-a.from)/(a.to-a.from)*(a.end-a.begin)
}

// ticks are round numbers within the axis, about five of them: steps of 1, 2 or 5 times a power of ten.
func (a axis) ticks() []float64 {
	span := a.to - a.from
	if !(span > 0) {
		return []float64{a.from}
	}
	step := math.Pow(10, math.Floor(math.Log10(span/4)))
	for _, f := range []float64{1, 2, 5, 10} {
		if span/(step*f) <= 5 {
			step *= f
			break
		}
	}
	var out []float64
	for i := math.Ceil(a.from / step); i*step <= a.to*(1+1e-9); i++ {
		out = append(out, i*step)
	}
	return out
}

// extent returns the range of all series' numbers, with 0 in it.
func extent(all []series, of func(series) []float64) (from, to float64) {
	for _, s := range all {
		for _, v := range of(s) {
			from, to = min(from, v), max(to, v)
		}
	}
	return from, to
}

// chart draws series as SVG. title is read out in its place.
func chart(title, xName string, all []series) template.HTML {
	x0, x1 := extent(all, func(s series) []float64 { return s.x })
	y0, y1 := extent(all, func(s series) []float64 { return s.y })
	x, y := axis{x0, x1, left, chartWidth - right}, axis{y0, y1, chartHeight - low, above}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartWidth, chartHeight, template.HTMLEscapeString(title))
	for _, v := range y.ticks() {
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="y" x="%g" y="%.1f">%.4g</text>`,
			left, chartWidth-right, y.at(v), y.at(v), left-6, y.at(v)+4, v)
	}
	for _, v := range x.ticks() {
		fmt.Fprintf(&b, `<text class="x" x="%.1f" y="%g">%.6g</text>`, x.at(v), chartHeight-8, v)
	}
	fmt.Fprintf(&b, `<text class="name" x="%g" y="%g">%s</text>`, chartWidth-right, chartHeight-low-6, template.HTMLEscapeString(xName))
	for _, s := range all {
		if s.dots {
			for i := range s.x {
				fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%.1f" r="2.5"/>`, s.class, x.at(s.x[i]), y.at(s.y[i]))
			}
			continue
		}
		fmt.Fprintf(&b, `<polyline class="%s" points="`, s.class)
		for i := range s.x {
			fmt.Fprintf(&b, "%.1f,%.1f ", x.at(s.x[i]), y.at(s.y[i]))
		}
		b.WriteString(`"/>`)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) // of numbers, classes of ours and escaped names
}
