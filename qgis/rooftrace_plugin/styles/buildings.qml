<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis styleCategories="Symbology" version="3.22.16-Białowieża">
  <renderer-v2 graduatedMethod="GraduatedColor" attr="score" type="graduatedSymbol">
    <ranges>
      <range render="true" symbol="0" lower="0.000000000000000" label="0 – 0.25 (doubtful)" upper="0.250000000000000" />
      <range render="true" symbol="1" lower="0.250000000000000" label="0.25 – 0.5" upper="0.500000000000000" />
      <range render="true" symbol="2" lower="0.500000000000000" label="0.5 – 0.75" upper="0.750000000000000" />
      <range render="true" symbol="3" lower="0.750000000000000" label="0.75 – 1 (sure)" upper="1.000000000000000" />
    </ranges>
    <symbols>
      <symbol name="0" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="227,26,28,90" />
            <Option name="outline_color" type="QString" value="227,26,28,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="1" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="253,141,60,90" />
            <Option name="outline_color" type="QString" value="253,141,60,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="2" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="254,217,118,90" />
            <Option name="outline_color" type="QString" value="254,217,118,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="3" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="49,209,124,90" />
            <Option name="outline_color" type="QString" value="49,209,124,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
    </symbols>
  </renderer-v2>
  <blendMode>0</blendMode>
  <featureBlendMode>0</featureBlendMode>
  <layerGeometryType>2</layerGeometryType>
</qgis>
