<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis styleCategories="Symbology" version="3.22.16-Białowieża">
  <renderer-v2 graduatedMethod="GraduatedColor" attr="built_up_share" type="graduatedSymbol">
    <ranges>
      <range render="true" symbol="0" lower="0.000000000000000" label="0 – 10 %" upper="0.100000000000000" />
      <range render="true" symbol="1" lower="0.100000000000000" label="10 – 20 %" upper="0.200000000000000" />
      <range render="true" symbol="2" lower="0.200000000000000" label="20 – 40 % (dense)" upper="0.400000000000000" />
      <range render="true" symbol="3" lower="0.400000000000000" label="40 – 60 %" upper="0.600000000000000" />
      <range render="true" symbol="4" lower="0.600000000000000" label="60 – 100 %" upper="1.000000000000000" />
    </ranges>
    <symbols>
      <symbol name="0" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="255,255,212,140" />
            <Option name="outline_color" type="QString" value="90,42,0,255" />
            <Option name="outline_width" type="QString" value="0.3" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="1" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="254,217,142,140" />
            <Option name="outline_color" type="QString" value="90,42,0,255" />
            <Option name="outline_width" type="QString" value="0.3" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="2" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="254,153,41,140" />
            <Option name="outline_color" type="QString" value="90,42,0,255" />
            <Option name="outline_width" type="QString" value="0.3" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="3" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="217,95,14,140" />
            <Option name="outline_color" type="QString" value="90,42,0,255" />
            <Option name="outline_width" type="QString" value="0.3" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="4" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="122,42,4,140" />
            <Option name="outline_color" type="QString" value="90,42,0,255" />
            <Option name="outline_width" type="QString" value="0.3" />
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
